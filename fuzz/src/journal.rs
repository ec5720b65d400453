//! What the agent wrote down, read again whatever became of the file: `journal_replay`.
//!
//! In:  entries, written as the agent writes them; then cut off, spoilt, or followed by anything.
//! Out: a panic when something is read that was not written in front of the first line that cannot
//!      be read, when something written there is missing, or when reading depends on more.
//! Not here: files (`agent::daemon::journal`), what the entries open (nothing by themselves).

use std::collections::BTreeMap;

use agent::daemon::journal::lines::{Entry, Found, Past, entries, head, line, read};

use crate::input::Input;

const BOOT: &str = "this";

/// A file of some lines, some of its bytes spoilt.
pub fn journal_replay(data: &[u8]) {
    let mut input = Input::new(data);
    let (boot, noise) = (
        *input.pick(&[BOOT, BOOT, BOOT, "another", ""]),
        input.byte(),
    );
    let mut file = Vec::new();
    if noise != 255 {
        file.extend(line(&head(boot)).unwrap());
    }
    for _ in 0..input.below(24) {
        file.extend(line(&entry(&mut input)).unwrap());
    }
    input.spoil(&mut file);
    if noise & 1 == 1 {
        let end = usize::from(input.short()) % (file.len() + 1);
        file.truncate(end);
    }
    if noise & 2 == 2 {
        file.extend(input.rest());
    }
    let found = read(&file[..], BOOT).unwrap();
    assert_eq!(found, plainly(&file));
    if let Found::Ours(past) = found {
        // Written anew, it says the same.
        let mut again = line(&head(BOOT)).unwrap();
        for entry in entries(&past) {
            again.extend(line(&entry).unwrap());
        }
        assert_eq!(read(&again[..], BOOT).unwrap(), Found::Ours(past));
    }
}

/// The whole lines up to the first that is none, each by itself.
fn plainly(file: &[u8]) -> Found {
    let whole = file
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let mut lines = file[..whole]
        .split_inclusive(|byte| *byte == b'\n')
        .map_while(|line| serde_json::from_slice::<Entry>(line).ok());
    match lines.next() {
        Some(Entry::Namegate { format: 1, boot }) if boot == BOOT => {}
        Some(Entry::Namegate { .. }) => return Found::Other,
        _ => return Found::Foreign,
    }
    let mut past = Past::default();
    let mut names = BTreeMap::new();
    for (order, entry) in lines.enumerate() {
        match entry {
            Entry::Namegate { .. } => {}
            Entry::Labels(id, labels) => drop(past.labels.insert(id, labels)),
            Entry::Prefix(id, prefix) => drop(past.prefixes.insert(id, prefix)),
            Entry::Selector(id, selector) => drop(past.selectors.insert(id, selector)),
            Entry::Set(id, selectors) => drop(past.sets.insert(id, selectors)),
            Entry::Endpoint(id) => past.last_endpoint = past.last_endpoint.max(id),
            Entry::Name {
                of,
                ref name,
                ref ips,
                ..
            } => {
                let six = ips.first().is_some_and(|ip| ip.is_ipv6());
                names.insert((of, name.clone(), six), (order, entry));
            }
        }
    }
    let mut names: Vec<_> = names.into_values().collect();
    names.sort_by_key(|(order, _)| *order);
    past.names = names.into_iter().map(|(_, entry)| entry).collect();
    Found::Ours(past)
}

fn entry(input: &mut Input<'_>) -> Entry {
    let text = |input: &mut Input<'_>| -> String {
        (*input.pick(&[
            "a.test.",
            "*.b.test.",
            "k8s:app=web",
            "192.0.2.0/24",
            "\"\n\\",
            "",
            "ä",
        ]))
        .to_owned()
    };
    let number = |input: &mut Input<'_>| match input.below(4) {
        0 => u32::MAX,
        1 => 0x0100_0001 + u32::from(input.byte()),
        _ => u32::from(input.byte()),
    };
    match input.below(8) {
        0 => head(BOOT),
        1 => Entry::Labels(
            number(input),
            (0..input.below(4)).map(|_| text(input)).collect(),
        ),
        2 => Entry::Prefix(number(input), text(input)),
        3 => Entry::Selector(number(input), text(input)),
        4 => Entry::Set(
            number(input),
            (0..input.below(4)).map(|_| number(input)).collect(),
        ),
        5 => Entry::Endpoint(number(input)),
        _ => Entry::Name {
            of: number(input),
            name: text(input),
            ttl: number(input),
            at: u64::from(input.word()),
            ips: (0..input.below(4))
                .map(|_| match input.flag() {
                    false => input.array::<4>().into(),
                    true => input.array::<16>().into(),
                })
                .collect(),
            until: u64::MAX - u64::from(input.word()),
        },
    }
}
