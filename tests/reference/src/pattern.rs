//! Name patterns as regular expressions, built as Cilium 1.19 `pkg/fqdn/matchpattern` does.
//!
//! In:  the text of a pattern.
//! Out: the text of the expression, and whether it matches.
//! Not here: the matcher that ships (`policy::fqdn::Pattern`).

use regex::Regex;

/// One character a wildcard stands for.
const C: &str = "[-a-zA-Z0-9_]";

/// Trim, lower-case, close with a dot unless only asterisks.
pub fn sanitize(pattern: &str) -> String {
    let text = pattern.trim().to_ascii_lowercase();
    if only_asterisks(&text) || text.ends_with('.') {
        return text;
    }
    format!("{text}.")
}

/// The expression for `toFQDNs`, over the whole name.
pub fn anchored(pattern: &str) -> String {
    if only_asterisks(pattern) {
        return format!("(^({C}+[.])+$)|(^[.]$)");
    }
    format!("^{}$", unanchored(pattern))
}

/// The expression for one of several L7 DNS rules.
pub fn unanchored(pattern: &str) -> String {
    if only_asterisks(pattern) {
        return ".*".into();
    }
    let stars = pattern.chars().take_while(|c| *c == '*').count();
    let (front, rest) = if stars >= 2 && pattern.chars().nth(stars) == Some('.') {
        (format!("({C}+([.]{C}+){{0,}})[.]"), &pattern[stars + 1..])
    } else {
        (String::new(), pattern)
    };
    let mut out = front;
    let mut in_star = false;
    for c in rest.chars() {
        match c {
            '*' if in_star => {}
            '*' => out.push_str(&format!("{C}*")),
            '.' => out.push_str("[.]"),
            other => out.push_str(&regex::escape(&other.to_string())),
        }
        in_star = c == '*';
    }
    out
}

/// Whether a `toFQDNs` pattern matches the name (lower-case, with its final dot).
pub fn matches(pattern: &str, name: &str) -> bool {
    Regex::new(&anchored(&sanitize(pattern))).is_ok_and(|regex| regex.is_match(name))
}

/// Whether a set of L7 DNS patterns matches the name: one alternation; an empty list, or a
/// pattern of only asterisks, is everything.
pub fn l7_matches(patterns: &[&str], name: &str) -> bool {
    if patterns.is_empty() || patterns.iter().any(|p| only_asterisks(&sanitize(p))) {
        return true;
    }
    let parts: Vec<_> = patterns.iter().map(|p| unanchored(&sanitize(p))).collect();
    Regex::new(&format!("^(?:{})$", parts.join("|"))).is_ok_and(|regex| regex.is_match(name))
}

/// The expression the CRD schema holds `matchName` to.
pub fn crd_name_regex() -> &'static str {
    "^([-a-zA-Z0-9_]+[.]?)+$"
}

/// The expression the CRD schema holds `matchPattern` to.
pub fn crd_pattern_regex() -> &'static str {
    "^([-a-zA-Z0-9_*]+[.]?)+$"
}

fn only_asterisks(pattern: &str) -> bool {
    let stars = pattern.strip_suffix('.').unwrap_or(pattern);
    !stars.is_empty() && stars.chars().all(|c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts of the expressions themselves (`matchpattern_test.go`).
    #[test]
    fn vectors_a_regex_text() {
        assert_eq!(anchored("cilium.io."), "^cilium[.]io[.]$");
        assert_eq!(unanchored("cilium.io."), "cilium[.]io[.]");
        assert_eq!(anchored("*.cilium.io."), format!("^{C}*[.]cilium[.]io[.]$"));
        assert_eq!(unanchored("*.cilium.io."), format!("{C}*[.]cilium[.]io[.]"));
        assert_eq!(anchored("*"), format!("(^({C}+[.])+$)|(^[.]$)"));
        assert_eq!(unanchored("*"), ".*");
        assert_eq!(anchored("."), "^[.]$");
        assert_eq!(unanchored("."), "[.]");
    }
}
