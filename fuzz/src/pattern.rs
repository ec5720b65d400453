//! Names and patterns against regular expressions: `pattern_vs_regex`.
//!
//! In:  lines of text: a pattern, then names and more patterns.
//! Out: a panic when the matcher and the expression of the reference disagree.
//! Not here: which selectors an endpoint has (`policies`).

use policy::fqdn::{Fqdn, NameIndex, NameSelector, NameSet, Pattern};
use reference::{Regex, pattern as naive};

/// Letters that make most differences; a byte picks one.
const ALPHABET: &[u8] = b"ab..**-_A\n\n1 a.*";
/// Longest text that is looked at: longer ones only take longer.
const LONGEST: usize = 600;

/// The matcher, the grammar, sets of names and the index say what the regular expressions say.
pub fn pattern_vs_regex(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else {
        return;
    };
    let rest = &rest[..rest.len().min(LONGEST)];
    let text = if mode & 1 == 0 {
        let letters = rest
            .iter()
            .map(|b| ALPHABET[usize::from(*b) % ALPHABET.len()]);
        String::from_utf8_lossy(&letters.collect::<Vec<_>>()).into_owned()
    } else {
        String::from_utf8_lossy(rest).into_owned()
    };
    let lines: Vec<&str> = text.split('\n').take(8).collect();
    for line in &lines {
        grammar(line);
    }
    let Some((first, others)) = lines.split_first() else {
        return;
    };
    let pattern = Pattern::compile(first);
    // A pattern with other characters is no pattern and matches nothing.
    let usual = first
        .trim()
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_.*".contains(&b));
    for name in others {
        let expected = usual && naive::matches(first, name);
        let found = pattern.matches_text(name);
        assert_eq!(found, expected, "pattern `{first}`, text `{name}`");
        if let Ok(name) = Fqdn::parse(name) {
            let expected = usual && naive::matches(first, name.as_str());
            let found = pattern.matches(&name);
            assert_eq!(found, expected, "pattern `{first}`, name `{name}`");
        }
    }
    sets(&lines);
}

/// What may stand in a policy is what the schema says, and a name is one whichever way it comes.
fn grammar(text: &str) {
    let crd = |expression| Regex::new(expression).unwrap().is_match(text);
    let short = text.len() <= 255;
    if let Ok(selector) = NameSelector::name(text) {
        assert!(crd(naive::crd_name_regex()), "`{text}`");
        assert!(!selector.as_str().is_empty());
    } else if crd(naive::crd_name_regex()) {
        assert!(!short || text.split('.').any(|label| label.len() > 63) || text.len() > 253);
    }
    if NameSelector::pattern(text).is_ok() {
        assert!(crd(naive::crd_pattern_regex()), "`{text}`");
    } else if crd(naive::crd_pattern_regex()) {
        assert!(!short || text.split('.').any(|label| label.len() > 63) || text.len() > 253);
    }
    if let Ok(name) = Fqdn::parse(text) {
        assert_eq!(Fqdn::parse(name.as_str()).as_ref(), Ok(&name));
        assert_eq!(name.as_str(), name.as_str().to_ascii_lowercase());
    }
}

/// Many selectors at once decide what each of them decides.
fn sets(lines: &[&str]) {
    let texts: Vec<&str> = lines
        .iter()
        .copied()
        .filter(|text| NameSelector::pattern(text).is_ok())
        .collect();
    let selectors: Vec<NameSelector> = texts
        .iter()
        .filter_map(|text| NameSelector::pattern(text).ok())
        .collect();
    let set: NameSet = selectors.iter().cloned().collect();
    let mut index = NameIndex::default();
    for (nth, selector) in selectors.iter().enumerate() {
        index.insert(selector, nth);
    }
    for name in lines.iter().filter_map(|text| Fqdn::parse(text).ok()) {
        if !selectors.is_empty() {
            // Every name is more than what `*` matches: the compiler tells them apart.
            let every = selectors.iter().any(NameSelector::is_every_name);
            let expected = naive::l7_matches(&texts, name.as_str());
            let found = every || set.matches(&name);
            assert_eq!(found, expected, "{texts:?} and `{name}`");
        }
        let mut found: Vec<usize> = index.matching(&name).copied().collect();
        found.sort_unstable();
        let expected: Vec<usize> = texts
            .iter()
            .enumerate()
            .filter(|(_, text)| naive::matches(text, name.as_str()))
            .map(|(nth, _)| nth)
            .collect();
        assert_eq!(found, expected, "{texts:?} and `{name}`");
    }
}
