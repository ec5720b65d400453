//! Messages that are nearly right.

use super::*;

fn message(counts: [u16; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xbe, 0xef, 0x81, 0x80];
    bytes.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    bytes.extend(body);
    bytes
}

fn question(body: &[u8]) -> Result<Question, QuestionError> {
    let bytes = message([1, 0, 0, 0], body);
    Question::read(&bytes, Header::read(&bytes).unwrap())
}

#[test]
fn a_question_keeps_its_bytes_and_folds_its_name() {
    let found = question(b"\x03wWw\x02Ex\x00\x00\x1c\x00\x01trailing").unwrap();
    assert_eq!(found.name, Fqdn::parse("www.ex").unwrap());
    assert_eq!((found.qtype, found.qclass), (number::AAAA, number::IN));
    assert_eq!(&found.bytes[..], b"\x03wWw\x02Ex\x00\x00\x1c\x00\x01");
    let root = question(b"\x00\x00\x02\x00\x01").unwrap();
    assert_eq!(root.name, Fqdn::root());
}

#[test]
fn a_question_that_could_be_read_in_two_ways_is_not_read() {
    for (body, error) in [
        (&b""[..], QuestionError::Short),
        (b"\x03ww", QuestionError::Short),
        (b"\x01a\x00\x00\x01\x00", QuestionError::Short),
        (b"\xc0\x00\x00\x01\x00\x01", QuestionError::Name),
        (b"\x01a\xc0\x0c\x00\x01\x00\x01", QuestionError::Name),
        (b"\x40a\x00\x00\x01\x00\x01", QuestionError::Name),
    ] {
        assert_eq!(question(body), Err(error), "{body:?}");
    }
    let bytes = message([2, 0, 0, 0], b"\x00\x00\x01\x00\x01\x00\x00\x01\x00\x01");
    let header = Header::read(&bytes).unwrap();
    assert_eq!(Question::read(&bytes, header), Err(QuestionError::Count));
}

#[test]
fn the_longest_name_is_read_and_a_longer_one_is_not() {
    let labels = |sizes: &[u8]| -> Vec<u8> {
        let label = |len: &u8| [&[*len][..], &vec![b'a'; usize::from(*len)]].concat();
        let mut body: Vec<u8> = sizes.iter().flat_map(label).collect();
        body.extend([0, 0, 1, 0, 1]);
        body
    };
    assert!(question(&labels(&[63, 63, 63, 61])).is_ok());
    assert_eq!(
        question(&labels(&[63, 63, 63, 62])),
        Err(QuestionError::Name)
    );
}

#[test]
fn an_echo_may_differ_in_case_only() {
    let asked = question(b"\x03wWw\x02Ex\x00\x00\x01\x00\x01").unwrap();
    for (echo, same) in [
        (&b"\x03WWW\x02eX\x00\x00\x01\x00\x01"[..], true),
        (b"\x03www\x02ey\x00\x00\x01\x00\x01", false),
        (b"\x03www\x02ex\x00\x00\x1c\x00\x01", false),
        (b"\x03www\x02ex\x00\x00\x01\x00\x03", false),
        (b"\x03www\x02ex\x00\x00\x01", false),
    ] {
        let bytes = message([1, 0, 0, 0], echo);
        let header = Header::read(&bytes).unwrap();
        assert_eq!(asked.is_echoed_in(&bytes, header), same, "{echo:?}");
    }
}

#[test]
fn the_first_broken_record_ends_the_section() {
    let good = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x01\x02\x03\x04";
    let asked = b"\x01a\x00\x00\x01\x00\x01";
    for (tail, found, complete) in [
        (&b""[..], 1, false),
        (&good[..], 2, true),
        (b"\xc0\x0c\x00\x01", 1, false),
        // A length beyond the end.
        (
            b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\xff\xff\x01",
            1,
            false,
        ),
        // A pointer to itself.
        (
            b"\xc0\x23\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x01\x02\x03\x04",
            1,
            false,
        ),
        // An A record of five bytes says nothing; the section goes on.
        (
            b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x05\x01\x02\x03\x04\x05",
            1,
            true,
        ),
        // Nor does one of another class.
        (
            b"\xc0\x0c\x00\x01\x00\x03\x00\x00\x00\x3c\x00\x04\x01\x02\x03\x04",
            1,
            true,
        ),
    ] {
        let bytes = message([1, 2, 0, 0], &[&asked[..], good, tail].concat());
        let header = Header::read(&bytes).unwrap();
        let question = Question::read(&bytes, header).unwrap();
        let section = Records::read(&bytes, header, &question).unwrap();
        assert_eq!(
            (section.records.len(), section.complete),
            (found, complete),
            "{tail:?}"
        );
    }
}

#[test]
fn patches_never_reach_beyond_the_message() {
    let mut bytes = vec![0; 3];
    set_id(&mut bytes, 0xffff);
    set_ttl(&mut bytes, TtlField { at: 0, raw: 0 }, 1);
    set_ttl(
        &mut bytes,
        TtlField {
            at: usize::MAX,
            raw: 0,
        },
        1,
    );
    assert_eq!(bytes, [0xff, 0xff, 0]);
    set_id(&mut [], 1);
}
