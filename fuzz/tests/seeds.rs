//! The first inputs of every corpus, each with something a reader can name.
//!
//! In:  the formats the targets read.
//! Out: files `seed-…` in `fuzz/corpus/<target>/`, written with `FUZZ_WRITE_SEEDS=1`, compared
//!      otherwise: a format that changed shows here.
//! Not here: inputs that were found (every other file of a corpus).

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test says what went wrong by failing"
)]

mod corpus;

use fqdn_ebpf_common::ABI_VERSION;
use fuzz::TARGETS;

type Seed = (&'static str, Vec<u8>);

#[test]
fn seeds_are_what_the_corpora_hold() {
    let write = std::env::var_os("FUZZ_WRITE_SEEDS").is_some();
    for (target, _) in TARGETS {
        let mut expected: Vec<(String, Vec<u8>)> = seeds(target)
            .into_iter()
            .map(|(name, data)| (format!("seed-{name}"), data))
            .collect();
        expected.sort();
        assert!(!expected.is_empty(), "no seeds for {target}");
        let folder = corpus::folder(target);
        if write {
            std::fs::create_dir_all(&folder).unwrap();
            for (name, data) in &expected {
                std::fs::write(folder.join(name), data).unwrap();
            }
        }
        let mut found = corpus::files(target);
        found.retain(|(name, _)| name.starts_with("seed-"));
        assert!(found == expected, "{target}: run with FUZZ_WRITE_SEEDS=1");
    }
}

fn seeds(target: &str) -> Vec<Seed> {
    match target {
        "answer_acceptance" => answers(),
        "event_decode" => events(),
        "journal_replay" => journals(),
        "ledger_vs_reference" => ledgers(),
        "packet_path" => packets(),
        "pattern_vs_regex" => patterns(),
        "policy_parse" => files(),
        "policy_vs_reference" => policies(),
        "selector_parse" => selectors(),
        "tcp_framing" => streams(),
        "verdict_vs_reference" => verdicts(),
        "wire_decode" => wires(),
        other => panic!("no seeds for {other}"),
    }
}

/// One record: owner, content, class IN, TTL.
fn record(owner: &[u8], content: &[u8], ttl: u32) -> Vec<u8> {
    [owner, content, &[0, 3], &ttl.to_le_bytes()].concat()
}

/// The owner is the name that was asked.
const ASKED: &[u8] = &[0];

fn named(nth: u8) -> [u8; 2] {
    [4, nth]
}

fn answer(settings: u8, qtype: u8, flags: u8, records: &[Vec<u8>], spoilt: &[u8]) -> Vec<u8> {
    let count = u8::try_from(records.len()).unwrap();
    let head = [settings, qtype, 0, flags, count, 0];
    [&head[..], &records.concat(), spoilt].concat()
}

fn answers() -> Vec<Seed> {
    let a = |nth: u8| record(ASKED, &[0, nth], 300);
    let alias = |owner: &[u8], target: u8| record(owner, &[5, target], 120);
    let chain = vec![
        alias(ASKED, 1),
        alias(&named(1), 6),
        record(&named(6), &[0, 0], 60),
    ];
    let every_v4: Vec<_> = (0..12).map(a).collect();
    let every_v6: Vec<_> = (0..14).map(|nth| record(ASKED, &[3, nth], 90)).collect();
    let hints = [8, 1, 1, 3, 2, 4, 2, 0, 4, 6, 1, 0];
    let service = vec![record(ASKED, &hints, 30)];
    let looped = vec![alias(ASKED, 1), alias(&named(1), 0), a(0)];
    let bait = vec![a(0), record(&named(2), &[0, 1], 5)];
    vec![
        ("one-address", answer(0, 0, 0, &[a(0)], &[0])),
        ("chain", answer(0, 0, 0, &chain, &[0])),
        ("loop", answer(0, 0, 0, &looped, &[0])),
        ("bait", answer(0, 0, 0, &bait, &[0])),
        ("special-v4", answer(0, 0, 0, &every_v4, &[0])),
        ("special-v6-and-private", answer(1, 1, 0, &every_v6, &[0])),
        ("service-hints", answer(0, 2, 0, &service, &[0])),
        ("foreign-server", answer(2, 0, 0, &[a(0)], &[0])),
        ("over-tcp", answer(4, 0, 0, &[a(0)], &[0])),
        ("nobody-listens", answer(8, 0, 0, &[a(0)], &[0])),
        ("truncated", answer(0, 0, 4, &[a(0)], &[0])),
        ("servfail", answer(0, 0, 5, &[a(0)], &[0])),
        ("wrong-id", answer(0, 0, 0, &[a(0)], &[1, 0, 0, 0xff])),
        ("other-casing", answer(0, 0, 0, &[a(0)], &[1, 13, 0, b'A'])),
        (
            "huge-ttl",
            answer(0, 0, 0, &[record(ASKED, &[0, 0], u32::MAX >> 1)], &[0]),
        ),
        (
            "negative-ttl",
            answer(0, 0, 0, &[record(ASKED, &[0, 0], u32::MAX)], &[0]),
        ),
    ]
}

fn event(kind: u8, reason: u8, direction: u8, match_type: u8, shadow: u8) -> Vec<u8> {
    let mut bytes = vec![0; 96];
    bytes[..8].copy_from_slice(&42_u64.to_ne_bytes());
    bytes[8..12].copy_from_slice(&ABI_VERSION.to_ne_bytes());
    bytes[87..92].copy_from_slice(&[kind, reason, direction, match_type, shadow]);
    bytes
}

fn events() -> Vec<Seed> {
    let mut foreign = event(1, 0, 2, 0, 0);
    foreign[8] ^= 0xff;
    let mut short = event(1, 0, 2, 0, 0);
    short.pop();
    vec![
        ("flow", event(1, 0, 2, 2, 0)),
        ("drop", event(2, 133, 1, 0, 0)),
        ("audit", event(3, 0, 2, 4, 2)),
        ("flow-with-reason", event(1, 133, 2, 0, 0)),
        ("drop-without-reason", event(2, 0, 2, 0, 0)),
        ("unknown-kind", event(4, 0, 2, 0, 0)),
        ("unknown-direction", event(1, 0, 3, 0, 0)),
        ("unknown-match", event(1, 0, 1, 7, 0)),
        ("unknown-action", event(1, 0, 1, 0, 6)),
        ("other-version", foreign),
        ("short", short),
    ]
}

/// Ask for name `name` as endpoint `endpoint`: address bits, TTL half, which write fails (200 and
/// up).
fn taught(endpoint: u8, name: u8, addresses: u8, ttl: u8, fails: u8) -> Vec<u8> {
    vec![endpoint, name, addresses, ttl, fails]
}

fn ledgers() -> Vec<Seed> {
    let two_names = [
        taught(0, 0, 1, 20, 0),
        taught(0, 1, 1, 100, 0),
        vec![8, 50, 8, 100],
    ];
    let many_sets: Vec<u8> = (0..6)
        .flat_map(|n| taught(0, n, 1, 20 + 9 * n, 0))
        .collect();
    let quota: Vec<u8> = (0..6).flat_map(|n| taught(1, 0, 1 << n, 60, 0)).collect();
    let edit = [
        taught(0, 0, 3, 60, 0),
        vec![6, 0, 8, 5, 6, 0xf, 6, 5],
        taught(0, 2, 3, 60, 0),
    ];
    let reuse = [
        taught(1, 0, 7, 60, 0),
        taught(0, 0, 7, 60, 0),
        vec![9, 0xf],
        taught(1, 1, 1, 60, 0),
        vec![8, 200],
    ];
    let unmatched = [vec![6, 8], taught(0, 5, 7, 60, 0), vec![6, 0xf, 8, 1]];
    let failing: Vec<u8> = (0..8)
        .flat_map(|n| taught(n & 1, n, 0x3f >> (n % 4), 30, 200 + n))
        .chain([8, 40])
        .collect();
    vec![
        ("two-names-on-one-address", two_names.concat()),
        ("more-sets-than-slots", many_sets),
        ("more-addresses-than-the-quota", quota),
        ("policy-edits", edit.concat()),
        ("endpoint-reuse", reuse.concat()),
        ("name-that-matches-later", unmatched.concat()),
        ("writes-that-fail", failing),
    ]
}

/// Flags (deny in, deny out, audited), egress and ingress entries, steps.
fn packets() -> Vec<Seed> {
    // Peer, protocol, bits, port, decision, tier.
    let allow_web = [3, 1, 8, 80, 0, 0, 0];
    let allow_learned = [4, 1, 8, 63, 0, 0, 0];
    let redirect_dns = [0, 2, 8, 53, 0, 2, 0];
    let deny_all = [0, 0, 0, 0, 0, 1, 1];
    let policy = |egress: &[[u8; 7]]| {
        let mut bytes = Vec::new();
        for nth in 0..6 {
            bytes.extend(egress.get(nth).unwrap_or(&allow_web));
        }
        bytes.extend([allow_web, redirect_dns, deny_all].concat());
        bytes
    };
    // Out, peer, kind, ports, kind's choice, fragment, options, spoilt.
    let syn = |peer: u8, port: u8| [4, 1, peer, 0, 200, port, 0, 0, 0, 0];
    let back = |peer: u8, port: u8| [4, 0, peer, 0, 200, port, 2, 0, 0, 0];
    let udp = |peer: u8, port: u8| [4, 1, peer, 4, 200, port, 0, 0, 0];
    let world = |flags: u8, entries: &[[u8; 7]], steps: &[&[u8]]| {
        [&[flags][..], &policy(entries), &steps.concat()].concat()
    };
    let entries = [allow_web, allow_learned, redirect_dns];
    let learn = [3, 4, 200, 1, 0, 0, 0, 0, 0, 0];
    let fragments = [
        &[4_u8, 1, 2, 4, 200, 63, 4, 0, 0][..],
        &[4, 1, 2, 4, 200, 63, 5, 0, 0],
    ];
    let v6 = [9, 1, 0, 9, 0, 200, 63, 0, 5, 0, 0];
    let errors = [4, 0, 2, 7, 200, 63, 0, 0, 0];
    let arp = [11, 0, 0, 0, 1];
    vec![
        (
            "connect-and-answer",
            world(3, &entries, &[&syn(2, 63), &back(2, 63), &syn(2, 63)]),
        ),
        ("dns", world(3, &entries, &[&udp(4, 53), &syn(4, 53)])),
        (
            "learned",
            world(
                3,
                &entries,
                &[&learn, &syn(4, 63), &[2, 200, 0], &syn(4, 63)],
            ),
        ),
        (
            "node-and-workload",
            world(2, &entries, &[&syn(0, 5), &syn(1, 5)]),
        ),
        ("fragments", world(0, &entries, &[&fragments.concat()])),
        (
            "source-routing",
            world(0, &[], &[&[4, 1, 2, 4, 9, 9, 0, 5, 0]]),
        ),
        ("ipv6-and-arp", world(0, &[], &[&v6, &arp])),
        (
            "icmp-error",
            world(0, &[], &[&udp(2, 63), &errors, &errors]),
        ),
        (
            "audited",
            world(7, &[deny_all], &[&syn(4, 1), &errors, &udp(4, 53)]),
        ),
        ("noise", world(0, &[], &[&[0, 40], &[0xff; 41], &[0, 0]])),
    ]
}

fn selectors() -> Vec<Seed> {
    let text = |text: &str| [&[1], text.as_bytes()].concat();
    vec![
        ("empty", text("{}")),
        ("null", text("~")),
        ("nested", text("{matchLabels: {app: [web]}}")),
        (
            "no-values",
            text("{matchExpressions: [{key: app, operator: In}]}"),
        ),
        (
            "long-key",
            text(&format!("{{matchLabels: {{{}: web}}}}", "a".repeat(400))),
        ),
        // app = web; then labels k8s:app=web, reserved:app=db.
        ("label", vec![0, 1, 0, 0, 0, 0, 0, 0, 4]),
        // k8s:app NotIn (web, db); then three labels.
        ("not-in", vec![0, 0, 1, 1, 1, 2, 0, 1, 2, 0, 3, 4]),
        // app Exists, reserved:app DoesNotExist.
        ("there", vec![0, 0, 2, 0, 2, 0, 3, 3, 0, 1, 0, 4]),
    ]
}

fn patterns() -> Vec<Seed> {
    let text = |text: &str| [&[1], text.as_bytes()].concat();
    vec![
        (
            "exact",
            text("github.com\ngithub.com.\nxgithub.com.\ngithub.com"),
        ),
        (
            "star",
            text("*.github.com\napi.github.com.\ngithub.com.\na.b.github.com."),
        ),
        (
            "double-star",
            text("**.github.com\na.b.github.com.\ngithub.com.\n.github.com."),
        ),
        ("every", text("*\n.\na.\n_x._tcp.a.b.\n.a.")),
        ("inner-run", text("a**b.c\naxb.c.\nab.c.\na.b.c.")),
        ("inner-star", text("*.ci*.io\na.cilium.io.\na.c.i.io.")),
        ("casing", text(" GitHub.COM \nGITHUB.com.\ngithub.com.")),
        ("escapes", text("a.b\na\\.b.\na\\032b.\na\\\\b.\na b.")),
        ("letters", vec![0, 0, 4, 9, 2, 1, 10, 0, 9, 2, 1, 9]),
        (
            "long",
            text(&format!(
                "{}*.{}\n{0}a.{1}.",
                "a".repeat(60),
                "b".repeat(63)
            )),
        ),
        (
            "stars",
            text(&format!("{}\n{}.", "*a".repeat(20), "a".repeat(40))),
        ),
    ]
}

fn files() -> Vec<Seed> {
    let file = |text: &str| [&[0], text.as_bytes()].concat();
    let head = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: x}\n";
    let good = format!(
        "{head}spec:\n  endpointSelector: {{matchLabels: {{app: x}}}}\n  egress:\n  - toFQDNs:\n    \
         - matchName: github.com\n    - matchPattern: '*.github.com'\n    toPorts:\n    - ports: \
         [{{port: '443', protocol: TCP}}]\n  - toEndpoints: [{{}}]\n    toPorts:\n    - ports: \
         [{{port: '53'}}]\n      rules: {{dns: [{{matchPattern: '*'}}]}}\n"
    );
    let aliases = format!("{head}a: &a [x,x,x]\nb: &b [*a,*a,*a]\nc: &c [*b,*b,*b]\nd: [*c,*c]\n");
    let list =
        "{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [{\"kind\": \"ConfigMap\"}]}";
    let words: Vec<u8> = std::iter::once(1).chain(0..=255).collect();
    vec![
        ("good", file(&good)),
        ("two-documents", file(&format!("{good}---\n{good}"))),
        ("aliases", file(&aliases)),
        ("alias-of-itself", file("a: &a [*a]\n")),
        ("deep", file(&"[".repeat(200))),
        ("list", file(list)),
        (
            "unknown-field",
            file(&format!(
                "{head}spec: {{endpointSelector: {{}}, egres: []}}\n"
            )),
        ),
        ("broken", file("a: [b\n")),
        ("not-utf8", vec![0, b'a', b':', 0xff, 0xfe]),
        ("tags", file("a: !!binary x\nb: !local {}\n")),
        ("words", words),
        ("allow", [&[2], &b"*.example.org:8443/any"[..]].concat()),
        ("allow-address", [&[2], &b"[2001:db8::1]:443"[..]].concat()),
    ]
}

fn policies() -> Vec<Seed> {
    // Bytes with every remainder in turn make every choice somewhere.
    let walk = |step: u8, len: u8| (0..len).map(|n| n.wrapping_mul(step)).collect();
    let dns = vec![0, 0, 0, 3, 8, 2, 0, 1, 3, 1, 1, 0, 0, 2, 3, 1, 0, 1, 2, 0];
    vec![
        ("one", vec![0]),
        ("names-and-resolver", dns),
        ("ones", vec![1; 120]),
        ("walk-3", walk(3, 200)),
        ("walk-7", walk(7, 200)),
        ("walk-11", walk(11, 200)),
        ("walk-37", walk(37, 200)),
        ("walk-101", walk(101, 200)),
    ]
}

fn streams() -> Vec<Seed> {
    let long = {
        let mut bytes = vec![200, 3, 0, 90, 0, 1, 44];
        bytes.extend([7; 300]);
        bytes
    };
    vec![
        ("empty-messages", vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("byte-by-byte", vec![0, 0, 0, 0, 0, 0, 2, 1, 2, 0, 1, 9]),
        ("not-complete", vec![1, 1, 1, 1, 0, 255, 255, 1, 2, 3]),
        ("long", long),
        (
            "many",
            [&[2, 0, 4, 1, 1][..], &[1, 2, 3, 0, 4, 0, 0, 5].repeat(9)].concat(),
        ),
    ]
}

fn verdicts() -> Vec<Seed> {
    // Peer, protocol, bits, port, decision, tier.
    let allow = |peer: u8, port: u8| [peer, 1, 8, port, 0, 0, 0];
    let deny = |peer: u8| [peer, 0, 0, 0, 0, 1, 0];
    let redirect = [0, 1, 8, 53, 0, 2, 0];
    // Deny by default, four learned, identity, protocol, port.
    let ask = |learned: u8, port: u8| [1, learned, 0, 2, 0, 0, 0, port, 0];
    let case = |entries: &[[u8; 7]], asks: &[[u8; 9]]| {
        let count = u8::try_from(entries.len()).unwrap();
        [&[count][..], &entries.concat(), &asks.concat()].concat()
    };
    let asks = [ask(0, 53), ask(1, 53), ask(3, 63), ask(4, 1)];
    let tiers = [
        [1, 1, 8, 53, 0, 0, 2],
        [1, 1, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 0, 1, 0],
    ];
    vec![
        ("nothing", case(&[], &asks)),
        ("allow", case(&[allow(1, 53), allow(3, 63)], &asks)),
        ("deny-wins", case(&[allow(1, 53), deny(2), deny(0)], &asks)),
        (
            "redirect",
            case(&[redirect, allow(1, 53), allow(0, 53)], &asks),
        ),
        ("tiers", case(&tiers, &asks)),
        (
            "prefixes",
            case(&[[1, 1, 0, 0, 0, 0, 0], [1, 1, 5, 32, 0, 1, 0]], &asks),
        ),
    ]
}

fn wires() -> Vec<Seed> {
    // Kind, port, over TCP, name, type, spoilt, cut.
    let ask = |port: u8, tcp: u8, name: u8| [2, port, tcp, name, 0, 0, 0];
    // Kind, also kept, flags, counts, records, spoilt.
    let reply =
        |count: u8, records: &[u8]| [&[5, 0, 0, count][..], &[count], records, &[0]].concat();
    let a = record(ASKED, &[0, 0], 300);
    let script = |settings: u8, steps: &[&[u8]]| [&[settings][..], &steps.concat()].concat();
    let raw = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x01x\x00\x00\x01\x00\x01";
    let query = |tcp: u8| [&[0, tcp, 22, 0][..], raw].concat();
    let many: Vec<u8> = (0..12).flat_map(|n| ask(n % 4, n & 1, n)).collect();
    vec![
        ("ask-and-answer", script(0, &[&ask(1, 0, 0), &reply(1, &a)])),
        (
            "over-tcp",
            script(0, &[&ask(1, 1, 1), &reply(1, &a), &[6, 1]]),
        ),
        ("raw-query", script(0, &[&query(0), &query(1)])),
        (
            "asked-twice",
            script(0, &[&query(0), &query(0), &reply(1, &a)]),
        ),
        (
            "answered-twice",
            script(
                0,
                &[&ask(1, 0, 0), &[5, 1, 0, 1, 1], &a, &[0], &reply(1, &a)],
            ),
        ),
        ("too-many", script(1, &[&many, &[8, 255, 1]])),
        (
            "audit",
            script(
                2,
                &[&ask(1, 0, 0), &[4, 0, 0, 200, 30, 0], &[0xc0; 30], &[0]],
            ),
        ),
        (
            "writes-fail",
            script(
                0x20,
                &[&ask(1, 0, 0), &reply(1, &a), &ask(2, 0, 1), &reply(1, &a)],
            ),
        ),
        (
            "unreachable",
            script(0, &[&ask(1, 0, 0), &[7], &[8, 60, 0]]),
        ),
        (
            "response-as-query",
            script(0, &[&[0, 1, 12, 0], &[0xff; 12]]),
        ),
        ("unsolicited", script(0, &[&[1, 12, 0, 7], &[0x80; 12]])),
    ]
}

fn journals() -> Vec<Seed> {
    // Boot, noise, count, then the entries: kind and what it needs.
    let file = |boot: u8, noise: u8, entries: &[&[u8]], rest: &[u8]| {
        let count = u8::try_from(entries.len()).unwrap();
        [&[boot, noise, count][..], &entries.concat(), rest].concat()
    };
    let labels: &[u8] = &[1, 2, 9, 2, 2, 0];
    let prefix: &[u8] = &[2, 1, 1, 3];
    let selector: &[u8] = &[3, 2, 1, 1];
    let set: &[u8] = &[4, 1, 1, 1, 2, 1];
    let endpoint: &[u8] = &[5, 2, 7];
    let name: &[u8] = &[
        6, 2, 7, 0, 2, 60, 1, 0, 0, 0, 1, 0, 203, 0, 113, 7, 2, 0, 0, 0,
    ];
    let all = [labels, prefix, selector, set, endpoint, name, name];
    vec![
        ("whole", file(0, 0, &all, &[0])),
        ("another-boot", file(3, 0, &all, &[0])),
        ("no-head", file(0, 255, &all, &[0])),
        ("cut-off", file(0, 1, &all, &[0, 120, 0])),
        ("spoilt", file(0, 0, &all, &[1, 90, 0, b'x'])),
        (
            "followed",
            file(
                0,
                2,
                &all,
                b"\0{\"endpoint\":9}\nnoise\n{\"endpoint\":99}\n",
            ),
        ),
        ("head-again", file(0, 0, &[&[0], endpoint, &[0]], &[0])),
    ]
}
