//! Rules about what is inside of connections: what goes with what, what lifts them.

mod village;

use policy::{
    compile::{CompileError, EnforcementMode, Surroundings},
    compiled::{Action, Direction, Outcome, Peer, Protocol},
    l7::{Message, Proxy, http},
};
use village::{FRIEND, Village, cnp, mistakes, try_village, village};

const FRIENDS: &str = "toEndpoints: [{matchLabels: {app: friend}}]";
const GET: &str = "toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{method: GET, path: '/public'}]}}]";
const SNI: &str =
    "toPorts: [{ports: [{port: '443', protocol: TCP}], serverNames: ['*.example.com']}]";

fn egress(rules: &[String]) -> Village {
    village(&cnp(&format!(
        "{{endpointSelector: {{}}, egress: [{}]}}",
        rules.join(", ")
    )))
}

fn request(method: &str, path: &str) -> http::Request {
    http::Request {
        method: method.into(),
        path: path.into(),
        ..http::Request::default()
    }
}

/// Outcome with a proxy, whether it lets `PUT /` pass, outcome without it.
fn put(village: &Village, address: &str, port: u16) -> (Outcome, bool, Outcome) {
    let verdict = village.named(Direction::Egress, address, "", Protocol::Tcp, port);
    let allowed = verdict.allows(Message::Http(&request("PUT", "/")));
    (verdict.outcome, allowed, verdict.datapath)
}

const HTTP: Outcome = Outcome::Redirected(Proxy::Http);

#[test]
fn what_only_a_proxy_could_allow_stays_shut_without_it() {
    let village = egress(&[format!("{{{FRIENDS}, {GET}}}")]);
    let entries: Vec<_> = village
        .policy
        .entries
        .iter()
        .map(|e| (e.direction, e.peer, e.l4.to_string(), e.action))
        .collect();
    let friend = Peer::Identity(FRIEND);
    let expected = (
        Direction::Egress,
        friend,
        "80/TCP".into(),
        Action::NeedsProxy,
    );
    assert_eq!(entries, [expected]);
    assert_eq!(village.policy.needs_proxy.len(), 1);
    assert_eq!(put(&village, "10.0.0.2", 80), (HTTP, false, HTTP));
    let verdict = village.named(Direction::Egress, "10.0.0.2", "", Protocol::Tcp, 80);
    assert!(verdict.allows(Message::Http(&request("GET", "/public"))));
    assert_eq!(village.to("10.0.0.2", 81), Outcome::NotAllowed);
    assert_eq!(village.to("10.0.0.3", 80), Outcome::NotAllowed);
}

/// §0: a redirect beats a plain allow whatever the ports, and then any plain allow lifts HTTP.
#[test]
fn any_plain_allow_lifts_http_rules() {
    let ruled = format!("{{{FRIENDS}, {GET}}}");
    for plain in [
        format!("{{{FRIENDS}}}"),
        format!("{{{FRIENDS}, toPorts: [{{ports: [{{port: '80', protocol: TCP}}]}}]}}"),
        "{toPorts: [{ports: [{port: '1', endPort: 1023, protocol: TCP}]}]}".into(),
        "{toEntities: [all]}".into(),
    ] {
        let village = egress(&[ruled.clone(), plain.clone()]);
        let expected = (HTTP, true, Outcome::Allowed);
        assert_eq!(put(&village, "10.0.0.2", 80), expected, "{plain}");
    }
}

#[test]
fn denies_and_other_directions_are_stronger_than_a_redirect() {
    let village = village(&cnp(&format!(
        "{{endpointSelector: {{}}, egress: [{{{FRIENDS}, {GET}}}], egressDeny: [{{{FRIENDS}}}]}}"
    )));
    let (outcome, _, datapath) = put(&village, "10.0.0.2", 80);
    assert_eq!((outcome, datapath), (Outcome::Denied, Outcome::Denied));
}

/// Without default deny a rule about requests only adds the redirect.
#[test]
fn without_default_deny_the_proxy_lets_everything_pass() {
    let village = village(&cnp(&format!(
        "{{endpointSelector: {{}}, enableDefaultDeny: {{egress: false}}, egress: [{{{FRIENDS}, {GET}}}]}}"
    )));
    let expected = (HTTP, true, Outcome::AllowedByDefault);
    assert_eq!(put(&village, "10.0.0.2", 80), expected);
    assert!(village.policy.entries.is_empty(), "nothing is taken away");
}

#[test]
fn server_names_bind_a_plain_allow_of_the_same_peers_and_port_only() {
    let plain_443 = "toPorts: [{ports: [{port: '443', protocol: TCP}]}]";
    let sni = Outcome::Redirected(Proxy::Tls);
    let bound = egress(&[format!("{{{SNI}}}"), format!("{{{plain_443}}}")]);
    let verdict = bound.named(Direction::Egress, "198.51.100.1", "", Protocol::Tcp, 443);
    assert_eq!((verdict.outcome, verdict.datapath), (sni, sni));
    assert!(verdict.allows(Message::Hello(Some("a.example.com"))));
    assert!(!verdict.allows(Message::Hello(Some("a.example.org"))));
    assert!(!verdict.allows(Message::Hello(None)));
    let lifted = egress(&[
        format!("{{{SNI}}}"),
        format!("{{toEntities: [world], {plain_443}}}"),
    ]);
    let verdict = lifted.named(Direction::Egress, "198.51.100.1", "", Protocol::Tcp, 443);
    assert_eq!((verdict.outcome, verdict.datapath), (sni, Outcome::Allowed));
    // Unlike names of servers, another port is another matter.
    assert_eq!(bound.to("198.51.100.1", 80), Outcome::NotAllowed);
}

#[test]
fn names_and_requests_go_together() {
    let village = egress(&[format!("{{toFQDNs: [{{matchName: a.test}}], {GET}}}")]);
    let verdict = village.named(
        Direction::Egress,
        "198.51.100.1",
        "a.test",
        Protocol::Tcp,
        80,
    );
    assert_eq!(verdict.outcome, HTTP);
    assert!(verdict.allows(Message::Http(&request("GET", "/public"))));
    let other = village.named(Direction::Egress, "198.51.100.1", "", Protocol::Tcp, 80);
    assert_eq!(other.outcome, Outcome::NotAllowed);
    assert_eq!(village.policy.selectors.len(), 1);
}

#[test]
fn one_port_of_the_same_peers_is_read_by_one_proxy() {
    let kafka = GET.replace(
        "http: [{method: GET, path: '/public'}]",
        "kafka: [{topic: a}]",
    );
    let text = cnp(&format!(
        "{{endpointSelector: {{}}, egress: [{{{FRIENDS}, {GET}}}, {{{FRIENDS}, {kafka}}}]}}"
    ));
    let result = try_village(&text, &Surroundings::default(), EnforcementMode::Default);
    let Err(CompileError::Conflict { kinds, .. }) = result else {
        panic!("{result:?}");
    };
    assert_eq!(kinds, ["http", "kafka"]);
}

#[test]
fn mistakes_in_rules_about_requests() {
    let on = |port: &str, more: &str| {
        cnp(&format!(
            "{{endpointSelector: {{}}, egress: [{{toPorts: [{{ports: [{port}], {more}}}]}}]}}"
        ))
    };
    let tcp = "{port: '80', protocol: TCP}";
    for (port, more, expected) in [
        ("{port: '80'}", "rules: {http: [{}]}", "inside of TCP only"),
        (
            "{port: '80', protocol: UDP}",
            "rules: {http: [{}]}",
            "inside of TCP only",
        ),
        (
            "{port: '0', protocol: TCP}",
            "rules: {http: [{}]}",
            "name the port",
        ),
        (
            tcp,
            "rules: {http: [{path: '('}]}",
            "http[0].path: not a regular expression",
        ),
        (
            tcp,
            "rules: {http: [{path: '(?=a)'}]}",
            "not a regular expression",
        ),
        (tcp, "rules: {http: [{paht: a}]}", "did you mean `path`?"),
        (
            tcp,
            "rules: {http: [{headers: [': a']}]}",
            "headers[0]: `: a` is not the name",
        ),
        (
            tcp,
            "rules: {http: [{headerMatches: [{value: a}]}]}",
            "`name` is required",
        ),
        (
            tcp,
            "rules: {http: [{headerMatches: [{name: A, mismatch: DROP}]}]}",
            "is not one of LOG",
        ),
        (
            tcp,
            "rules: {http: [{headerMatches: [{name: A, secret: {namespace: a}}]}]}",
            "`name` is required",
        ),
        (
            tcp,
            "rules: {http: [{}], kafka: [{}]}",
            "exactly one of `dns`, `http` and `kafka`",
        ),
        (
            tcp,
            "rules: {http: [{}], dns: [{matchName: a}]}",
            "exactly one of `dns`, `http` and `kafka`",
        ),
        (
            tcp,
            "rules: {kafka: [{role: produce, apiKey: fetch}]}",
            "exactly one of `role` and `apiKey`",
        ),
        (
            tcp,
            "rules: {kafka: [{role: steal}]}",
            "is not one of produce, consume",
        ),
        (
            tcp,
            "rules: {kafka: [{apiKey: nothing}]}",
            "is not one of produce, fetch",
        ),
        (
            tcp,
            "rules: {kafka: [{apiVersion: '70000'}]}",
            "is not a version",
        ),
        (tcp, "rules: {kafka: [{topic: 'a b'}]}", "is not a topic"),
        (tcp, "serverNames: ['']", "is not a server name"),
        (
            tcp,
            "serverNames: [a], rules: {http: [{}]}",
            "cannot stand beside L7 rules",
        ),
        (tcp, "terminatingTLS: {}", "`secret` is required"),
        (
            tcp,
            "terminatingTLS: {secret: {namespace: a}}",
            "`name` is required",
        ),
        (
            tcp,
            "serverNames: [a], rules: {dns: [{matchName: a}]}",
            "cannot stand beside `serverNames`",
        ),
    ] {
        let found = mistakes(&on(port, more));
        assert!(
            found.iter().any(|m| m.contains(expected)),
            "{more}\n{found:#?}"
        );
    }
}

#[test]
fn valid_rules_about_requests() {
    let tls = "{secret: {namespace: a, name: s}, certificate: c, privateKey: k}";
    for more in [
        "rules: {http: []}".to_owned(),
        "rules: {http: [{}]}".into(),
        "rules: {http: [{path: '/a/.*', method: 'GET|HEAD', host: 'a\\.b', headers: ['X-A: b', 'X-C'], headerMatches: [{name: X-D, value: e, mismatch: LOG}, {name: X-F, secret: {name: s}}]}]}".into(),
        "rules: {kafka: [{role: Produce, topic: a}, {apiKey: Fetch, apiVersion: '5', clientID: c}]}".into(),
        "serverNames: [a.test, '*.b.test', '**.c.test', '*']".into(),
        format!("terminatingTLS: {tls}, originatingTLS: {{secret: {{name: ca}}, trustedCA: ca.crt}}, serverNames: [a], rules: {{http: [{{}}]}}"),
    ] {
        let text = cnp(&format!(
            "{{endpointSelector: {{}}, egress: [{{toPorts: [{{ports: [{{port: '80', protocol: TCP}}], {more}}}]}}]}}"
        ));
        village(&text);
    }
}

/// Thousands of expressions, and large ones, are refused before they cost anything.
#[test]
fn expressions_are_bounded() {
    let rules = "{path: 'a'},".repeat(2001);
    let text = cnp(&format!(
        "{{endpointSelector: {{}}, egress: [{{toPorts: [{{ports: [{{port: '80', protocol: TCP}}], rules: {{http: [{rules}]}}}}]}}]}}"
    ));
    let found = mistakes(&text);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains("at most 2000"), "{found:#?}");
    let nested = "{path: '((((a{50}){50}){50}){50})'},".repeat(1000);
    let text = cnp(&format!(
        "{{endpointSelector: {{}}, egress: [{{toPorts: [{{ports: [{{port: '80', protocol: TCP}}], rules: {{http: [{nested}]}}}}]}}]}}"
    ));
    assert_eq!(mistakes(&text).len(), 20);
}

/// `Test_MergeRules` of Cilium: all 256 combinations of eight rules about one peer and port 80.
#[test]
fn vectors_merge_rules() {
    let port = "toPorts: [{ports: [{port: '80', protocol: TCP}]}]";
    let allows = [
        format!("{{{FRIENDS}}}"),
        format!("{{{port}}}"),
        format!("{{{FRIENDS}, {port}}}"),
        format!("{{{GET}}}"),
        format!("{{{FRIENDS}, {GET}}}"),
    ];
    let denies = &allows[..3];
    for combination in 0u32..256 {
        let has = |bit: usize| combination >> bit & 1 == 1;
        let chosen = |rules: &[String], first: usize| {
            let rules = rules.iter().enumerate();
            let rules: Vec<_> = rules
                .filter(|(i, _)| has(first + i))
                .map(|(_, rule)| rule.clone())
                .collect();
            rules.join(", ")
        };
        let (allowed, denied) = (chosen(&allows, 0), chosen(denies, 5));
        if combination == 0 {
            continue;
        }
        let village = village(&cnp(&format!(
            "{{endpointSelector: {{}}, egress: [{allowed}], egressDeny: [{denied}]}}"
        )));
        // (address, port, does an L3 rule count, does an L4 rule, do both together)
        for (address, port, l3, l4) in [
            ("10.0.0.2", 80, true, true),
            ("10.0.0.2", 81, true, false),
            ("10.0.0.3", 80, false, true),
            ("10.0.0.3", 81, false, false),
        ] {
            let any = |first: usize| {
                (has(first) && l3) || (has(first + 1) && l4) || (has(first + 2) && l3 && l4)
            };
            let (plain, deny) = (any(0), any(5));
            let ruled = (has(3) && l4) || (has(4) && l3 && l4);
            let expected = match (deny, ruled, plain) {
                (true, ..) => (Outcome::Denied, Outcome::Denied),
                (_, true, true) => (HTTP, Outcome::Allowed),
                (_, true, false) => (HTTP, HTTP),
                (_, false, true) => (Outcome::Allowed, Outcome::Allowed),
                (_, false, false) => (Outcome::NotAllowed, Outcome::NotAllowed),
            };
            let (outcome, lifted, datapath) = put(&village, address, port);
            let place = format!("{combination:08b} {address}:{port}");
            assert_eq!((outcome, datapath), expected, "{place}");
            assert_eq!(lifted, ruled && plain && !deny, "{place}");
        }
    }
}
