//! Reading rulesets: which chains are obstacles, which rules are a dead run's.

use super::*;

const RULESET: &str = r#"{"nftables": [
  {"metainfo": {"version": "1.0.6", "release_name": "x", "json_schema_version": 1}},
  {"table": {"family": "inet", "name": "filter", "handle": 1}},
  {"chain": {"family": "inet", "table": "filter", "name": "forward", "handle": 1, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
  {"chain": {"family": "inet", "table": "filter", "name": "input", "handle": 2, "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
  {"chain": {"family": "inet", "table": "filter", "name": "helper", "handle": 3}},
  {"table": {"family": "inet", "name": "firewalld", "handle": 2, "flags": ["owner", "persist"]}},
  {"chain": {"family": "inet", "table": "firewalld", "name": "fwd", "handle": 1, "type": "filter", "hook": "forward", "prio": 10, "policy": "accept"}},
  {"rule": {"family": "inet", "table": "firewalld", "chain": "fwd", "handle": 9, "expr": [{"drop": null}]}},
  {"table": {"family": "ip", "name": "quiet", "handle": 4}},
  {"chain": {"family": "ip", "table": "quiet", "name": "fwd", "handle": 1, "type": "filter", "hook": "forward", "prio": 0, "policy": "accept"}},
  {"chain": {"family": "ip", "table": "quiet", "name": "in", "handle": 2, "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}},
  {"table": {"family": "bridge", "name": "b", "handle": 5}},
  {"chain": {"family": "bridge", "table": "b", "name": "fwd", "handle": 1, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
  {"table": {"family": "inet", "name": "namegate7", "handle": 6, "flags": "owner"}},
  {"chain": {"family": "inet", "table": "namegate7", "name": "forward", "handle": 1, "type": "filter", "hook": "forward", "prio": -5, "policy": "accept"}},
  {"rule": {"family": "inet", "table": "namegate7", "chain": "forward", "handle": 2, "expr": []}},
  {"rule": {"family": "inet", "table": "filter", "chain": "forward", "handle": 21, "comment": "namegate:5:6:7", "expr": []}},
  {"rule": {"family": "inet", "table": "filter", "chain": "forward", "handle": 22, "comment": "namegate:8:6:7", "expr": []}},
  {"rule": {"family": "inet", "table": "filter", "chain": "forward", "handle": 23, "comment": "something else", "expr": []}}
]}"#;

fn ruleset(text: &str) -> Ruleset {
    let mut ruleset = Ruleset::default();
    ruleset.add(text).unwrap();
    ruleset.chains.retain(ChainObject::concerns_us);
    ruleset
}

fn passage<'a>(resolvers: &'a [SocketAddr]) -> Passage<'a> {
    Passage::Pod {
        link: "namegate0",
        resolvers,
        ipv6: true,
    }
}

#[test]
fn obstacles_are_chains_that_drop_or_have_rules() {
    let ruleset = ruleset(RULESET);
    let found: Vec<_> = ruleset
        .obstacles(&passage(&[]))
        .into_iter()
        .map(|chain| (chain.table, chain.name, chain.hook))
        .collect();
    assert_eq!(
        found,
        [
            ("filter".to_owned(), "forward".to_owned(), Hook::Forward),
            ("filter".to_owned(), "input".to_owned(), Hook::Input),
            ("firewalld".to_owned(), "fwd".to_owned(), Hook::Forward),
        ]
    );
}

#[test]
fn only_the_rules_of_the_asked_owner_are_removed() {
    let ruleset = ruleset(RULESET);
    let handles: Vec<_> = ruleset
        .tagged(&|owner| owner.pid == 5)
        .iter()
        .map(|rule| rule.handle)
        .collect();
    assert_eq!(handles, [21]);
}

#[test]
fn an_input_rule_names_the_resolver_in_its_own_family() {
    let chain = |family: &str| Chain {
        family: family.to_owned(),
        table: "t".to_owned(),
        name: "c".to_owned(),
        hook: Hook::Input,
    };
    let resolvers = [
        "192.0.2.53:53".parse().unwrap(),
        "[2001:db8::53]:5353".parse().unwrap(),
    ];
    let passage = passage(&resolvers);
    assert_eq!(chain("inet").rules(&passage, "tag").len(), 4);
    let v4 = chain("ip").rules(&passage, "tag");
    assert_eq!(v4.len(), 2);
    assert_eq!(
        v4[0]["insert"]["rule"]["expr"][0]["match"]["right"],
        "192.0.2.53"
    );
    assert_eq!(v4[0]["insert"]["rule"]["expr"][1]["match"]["right"], 53);
    assert_eq!(v4[0]["insert"]["rule"]["comment"], "tag");
    let v6 = chain("ip6").rules(&passage, "tag");
    assert_eq!(v6.len(), 2);
    assert_eq!(
        v6[1]["insert"]["rule"]["expr"][0]["match"]["right"],
        "2001:db8::53"
    );
    assert_eq!(
        v6[1]["insert"]["rule"]["expr"][1]["match"]["left"]["payload"]["protocol"],
        "tcp"
    );
}

#[test]
fn broken_output_is_an_error_and_no_ruleset_is_empty() {
    // What nft 1.0.6 writes for a table with flags.
    let broken = r#"{"nftables": [{"table": {"family": "inet", "name": "namegate0", "handle": 12, "flags": "#;
    assert!(Ruleset::default().add(broken).is_err());
    assert!(ruleset("").obstacles(&passage(&[])).is_empty());
}
