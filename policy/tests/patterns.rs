//! Name patterns: every published vector, and the regular expressions of the reference.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use policy::fqdn::{Fqdn, NameError, NameSelector, NameSet, Pattern, sanitize};
use proptest::prelude::*;
use reference::pattern as naive;

/// Accepts and rejects, for both implementations.
fn check(pattern: &str, accepts: &[&str], rejects: &[&str]) {
    for (names, expected) in [(accepts, true), (rejects, false)] {
        for name in names {
            let ours = Pattern::compile(pattern).matches_text(name);
            assert_eq!(ours, expected, "pattern `{pattern}`, name `{name}`");
            assert_eq!(
                naive::matches(pattern, name),
                expected,
                "reference: `{pattern}`, `{name}`"
            );
        }
    }
}

#[test]
fn vectors_a_meaning_of_the_four_forms() {
    check(
        "cilium.io.",
        &["cilium.io."],
        &["xcilium.io.", "cilium.iox.", "ciliumXio."],
    );
    check(
        "*.cilium.io.",
        &["a.cilium.io.", ".cilium.io."],
        &["a.b.cilium.io."],
    );
    check("*", &["."], &[""]);
    check(".", &["."], &["a."]);
}

#[test]
fn vectors_b_matching() {
    let other = ["anysub.ci.io.", "anysub.ciliumandmore.io."];
    check(
        "cilium.io.",
        &["cilium.io."],
        &["", "anysub.cilium.io.", other[0], other[1]],
    );
    check(
        "*.cilium.io.",
        &["anysub.cilium.io."],
        &["", "cilium.io.", other[0], other[1]],
    );
    check(
        "*.ci*.io.",
        &["anysub.cilium.io.", other[0], other[1]],
        &["", "cilium.io."],
    );
    check(
        "*",
        &[
            ".",
            "io.",
            "cilium.io.",
            "svc.cluster.local.",
            "service.namesace.svc.cluster.local.",
            "_foobar._tcp.cilium.io.",
        ],
        &[
            "",
            ".io.",
            ".cilium.io.",
            ".svc.cluster.local.",
            "cilium.io",
        ],
    );
    check(".", &["."], &["", ".io.", ".cilium.io"]);
    check(
        "_foobar._tcp.cilium.io.",
        &["_foobar._tcp.cilium.io."],
        &["", "_tcp.cilium.io.", "cilium.io."],
    );
    check("*.*.cilium.io.", &["_foobar._tcp.cilium.io."], &[""]);
}

#[test]
fn vectors_b_malformed_names_a_wildcard_may_leave_empty_labels_in() {
    check("*.cilium.io", &[".cilium.io."], &["cilium.io."]);
    check("*.*.cilium.io", &["test..cilium.io."], &[]);
}

#[test]
fn vectors_c_sanitize() {
    for (text, expected) in [
        ("*", "*"),
        ("*.", "*."),
        ("*.com", "*.com."),
        (" Foo.IO ", "foo.io."),
    ] {
        assert_eq!(sanitize(text), expected);
        assert_eq!(naive::sanitize(text), expected);
    }
}

#[test]
fn vectors_d_double_star_in_front() {
    let rejects = [
        "",
        "cilium.io.",
        "anysub.ci.io.",
        "sub.cilium.io",
        "1._foobar_tcp.cilium.trio.",
    ];
    let accepts = [
        "anysub.cilium.io.",
        "_foobar._tcp.cilium.io.",
        "sub11.sub22.sub33._foobar._tcp.cilium.io.",
    ];
    check("**.cilium.io.", &accepts, &rejects);
    check("***.cilium.io.", &accepts, &rejects);
    check(
        "**.ci*.io.",
        &[
            "anysub.cilium.io.",
            "anysub.ci.io.",
            "1.anysub.ciliumandmore.io.",
            "service.namesace.svc.ciuster.io.",
        ],
        &["", "cilium.io.", "service.namesace.svc..ciblaster.io."],
    );
    check(
        "**.*.io.",
        &["anysub.cilium.io.", "service.namesace.svc.ciuster.io."],
        &[
            "",
            "io.",
            "..cilium.io.",
            "cilium.io.",
            "service..namesace.svc.cluster.io.",
        ],
    );
}

#[test]
fn vectors_d_double_star_elsewhere_is_one_star() {
    check(
        "**cilium.io.",
        &["cilium.io.", "xcilium.io."],
        &["sub.cilium.io.", "a.xcilium.io."],
    );
    check(
        "test.**.cilium.io.",
        &["test.a.cilium.io."],
        &["test.a.b.cilium.io."],
    );
    check(
        "*.**.cilium.io.",
        &["_foobar._tcp.cilium.io."],
        &["2._foobar._tcp.cilium.io."],
    );
    check("1.**.cilium.io.", &[], &["1._foobar._tcp.cilium.io."]);
    check("**.**", &["cilium.io.", "a.b.cilium.io."], &[".", "io."]);
}

#[test]
fn vectors_d_only_asterisks_match_every_ordinary_name() {
    for pattern in ["**", "**.", "***."] {
        check(pattern, &[".", "io.", "a.b.c."], &["", ".io.", "io"]);
        assert!(Pattern::compile(pattern).is_every_name());
        assert_eq!(Pattern::compile(pattern), Pattern::compile("*"));
    }
}

#[test]
fn vectors_e_selector_sanitiser() {
    for name in [
        "cilium.io.",
        "get-cilium.io.",
        "foo.cilium.io.",
        "cilium.io",
        "_cilium.io",
    ] {
        assert!(NameSelector::name(name).is_ok(), "{name}");
    }
    for pattern in ["*.cilium.io", "*._cilium.io", "*cilium.io", "cilium.io"] {
        assert!(NameSelector::pattern(pattern).is_ok(), "{pattern}");
    }
    assert_eq!(
        NameSelector::name("a{1,2}.cilium.io."),
        Err(NameError::Character {
            text: "a{1,2}.cilium.io.".into(),
            found: '{'
        })
    );
    assert_eq!(
        NameSelector::pattern("[a-z]*.cilium.io."),
        Err(NameError::Character {
            text: "[a-z]*.cilium.io.".into(),
            found: '['
        })
    );
}

#[test]
fn vectors_f_crd_expressions() {
    for bad in [
        "%%",
        "",
        "\u{1f600}.com",
        ".",
        "..",
        ".x",
        "a..b",
        "a b",
        " a",
        "a\n",
    ] {
        assert!(NameSelector::name(bad).is_err(), "{bad:?}");
        assert!(NameSelector::pattern(bad).is_err(), "{bad:?}");
    }
    for good in [
        "cilium.io",
        "cilium.io.",
        "www.xn--e28h.com",
        "_tcp.cilium.io",
        "foo._tcp.cilium.io",
        "_http._tcp.cilium.io",
    ] {
        assert!(NameSelector::name(good).is_ok(), "{good}");
    }
    assert!(NameSelector::pattern("%$*.*").is_err());
    assert!(matches!(
        NameSelector::name("*.cilium.io"),
        Err(NameError::Wildcard { .. })
    ));
    for good in [
        "*.cilium.io",
        "*.cilium.io.*",
        "*.cilium.io.*.",
        "*.xn--e28h.com",
        "*._tcp.cilium.io",
        "*._tcp.*",
        "_http._tcp.*",
        "*",
        "**.x.y",
    ] {
        assert!(NameSelector::pattern(good).is_ok(), "{good}");
    }
}

#[test]
fn the_length_limit_is_255_for_both_fields() {
    for (len, fits) in [(255, true), (256, false)] {
        assert_eq!(NameSelector::name(&"a".repeat(len)).is_ok(), fits);
        assert_eq!(
            NameSelector::pattern(&format!("*{}", "a".repeat(len - 1))).is_ok(),
            fits
        );
    }
}

#[test]
fn spelling_does_not_make_another_selector() {
    let selector = |text| NameSelector::pattern(text).unwrap();
    assert_eq!(selector("***.GitHub.com"), selector("**.github.com."));
    assert_eq!(selector("a**b.c"), selector("a*b.c."));
    assert_eq!(
        selector("github.com"),
        NameSelector::name("GITHUB.com.").unwrap()
    );
    assert_eq!(selector("*.GitHub.com.").to_string(), "*.github.com");
    assert_eq!(selector("**.").to_string(), "*");
}

#[test]
fn a_name_of_other_characters_is_matched_by_no_pattern() {
    let name = Fqdn::from_labels([&b"a/b"[..], b"github", b"com"]).unwrap();
    for pattern in ["*", "*.github.com", "**.github.com", "*.*.*"] {
        assert!(
            !NameSelector::pattern(pattern).unwrap().matches(&name),
            "{pattern}"
        );
    }
}

#[test]
fn a_pattern_made_to_backtrack_is_quick() {
    let pattern = Pattern::parse(&format!("{}b", "*a".repeat(120))).unwrap();
    assert!(!pattern.matches_text(&format!("{}.", "a".repeat(254))));
}

fn pattern_text() -> impl Strategy<Value = String> {
    let label = "[ab*]{0,3}";
    proptest::collection::vec(label, 1..5).prop_map(|labels| labels.join("."))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_matcher_is_the_regular_expression(pattern in pattern_text(), name in "([ab_]{0,2}\\.){0,4}[ab]?") {
        prop_assert_eq!(
            Pattern::compile(&pattern).matches_text(&name),
            naive::matches(&pattern, &name),
            "pattern `{}`, name `{}`", pattern, name
        );
    }

    #[test]
    fn the_grammar_is_the_crd_expression(text in "[-aA0_*. %]{0,6}") {
        let crd = |text: &str, expression| regex(expression).is_match(text);
        prop_assert_eq!(NameSelector::name(&text).is_ok(), crd(&text, naive::crd_name_regex()));
        prop_assert_eq!(NameSelector::pattern(&text).is_ok(), crd(&text, naive::crd_pattern_regex()));
    }

    #[test]
    fn a_set_of_l7_names_is_one_alternation(
        patterns in proptest::collection::vec("[ab*]{1,2}(\\.[ab*]{1,2}){0,2}", 1..4),
        name in "([ab]{1,2}\\.){1,3}")
    {
        let set: NameSet = patterns.iter().map(|p| NameSelector::pattern(p).unwrap()).collect();
        let texts: Vec<_> = patterns.iter().map(String::as_str).collect();
        let name = Fqdn::parse(&name).unwrap();
        prop_assert_eq!(set.matches(&name), naive::l7_matches(&texts, name.as_str()));
    }
}

fn regex(text: &str) -> reference::Regex {
    reference::Regex::new(text).unwrap()
}
