//! HTTP requests: method, path, host, headers. gRPC is HTTP with the path `/package.Service/Method`.
//!
//! In:  `rules.http`, and one request.
//! Out: whether a rule matches it.
//! Not here: changing headers (`mismatch: ADD` and the like only keep a rule from failing).
//!
//! Meaning: `pkg/policy/api/http.go` of Cilium 1.20 and its proxy.

use std::sync::Arc;

use super::{SecretRef, WholeMatch};

/// One element of `rules.http`. What is not written does not matter; what is has to hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Over the path with its query.
    pub path: Option<WholeMatch>,
    /// Over the method.
    pub method: Option<WholeMatch>,
    /// Over the host (`:authority`).
    pub host: Option<WholeMatch>,
    /// `headers` and `headerMatches`.
    pub headers: Vec<HeaderMatch>,
}

/// What a header has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Its name, in lower case.
    pub name: Arc<str>,
    /// Its value; none asks only for its presence.
    pub value: Option<Arc<str>>,
    /// Where the value is kept; it counts before `value`.
    pub secret: Option<SecretRef>,
    /// What happens when it is not so.
    pub mismatch: Mismatch,
}

/// What happens when a header is not as it has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mismatch {
    /// The rule does not match.
    #[default]
    Fail,
    /// The rule matches and the difference is logged.
    Log,
    /// The rule matches and the header is added.
    Add,
    /// The rule matches and the header is removed.
    Delete,
    /// The rule matches and the value is replaced.
    Replace,
}

/// One request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// The host (`:authority`).
    pub host: String,
    /// The headers in order; names in any case.
    pub headers: Vec<(String, String)>,
}

/// Whether any rule matches.
pub fn allows(rules: &[Rule], request: &Request) -> bool {
    rules.iter().any(|rule| rule.matches(request))
}

impl Rule {
    /// Whether everything that is written holds.
    pub fn matches(&self, request: &Request) -> bool {
        let fits = |own: &Option<WholeMatch>, value: &str| {
            own.as_ref().is_none_or(|own| own.matches(value))
        };
        fits(&self.path, &request.path)
            && fits(&self.method, &request.method)
            && fits(&self.host, &request.host)
            && self.headers.iter().all(|header| header.holds(request))
    }
}

impl HeaderMatch {
    /// `"Name: value"`, `"Name value"` or `"Name"`.
    pub fn from_line(text: &str) -> Self {
        let (name, value) = match text.split_once(' ') {
            Some((name, value)) => (name, Some(value.into())),
            None => (text, None),
        };
        Self {
            name: name.trim_end_matches(':').to_ascii_lowercase().into(),
            value,
            secret: None,
            mismatch: Mismatch::Fail,
        }
    }

    fn holds(&self, request: &Request) -> bool {
        self.mismatch != Mismatch::Fail || self.is_as_wanted(request)
    }

    fn is_as_wanted(&self, request: &Request) -> bool {
        let mut values = request
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case(&self.name))
            .map(|(_, value)| value);
        match (&self.value, &self.secret) {
            (Some(wanted), _) => values.any(|value| **value == **wanted),
            // A value nobody here knows is never the right one.
            (None, Some(_)) => false,
            (None, None) => values.next().is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str) -> Request {
        Request {
            method: method.into(),
            path: path.into(),
            host: "web".into(),
            headers: vec![("X-Token".into(), "a b".into())],
        }
    }

    fn rule(method: &str, path: &str) -> Rule {
        Rule {
            method: Some(WholeMatch::parse(method).unwrap()),
            path: Some(WholeMatch::parse(path).unwrap()),
            ..Rule::default()
        }
    }

    #[test]
    fn one_rule_is_enough_and_each_needs_all_of_its_fields() {
        let rules = [rule("GET", "/api/health"), rule("GET", "/api/v1/.*")];
        assert!(allows(&rules, &request("GET", "/api/health")));
        assert!(allows(&rules, &request("GET", "/api/v1/users")));
        assert!(!allows(&rules, &request("POST", "/api/v1/users")));
        assert!(!allows(&rules, &request("GET", "/api/healthz")));
        assert!(allows(&[Rule::default()], &request("PUT", "/any")));
        assert!(!allows(&[], &request("PUT", "/any")));
    }

    #[test]
    fn headers_are_compared_as_written() {
        let with = |header: HeaderMatch| {
            let rule = Rule {
                headers: vec![header],
                ..Rule::default()
            };
            rule.matches(&request("GET", "/"))
        };
        assert!(with(HeaderMatch::from_line("x-token: a b")));
        assert!(with(HeaderMatch::from_line("X-Token a b")));
        assert!(with(HeaderMatch::from_line("X-Token")));
        assert!(!with(HeaderMatch::from_line("X-Token: a")));
        assert!(!with(HeaderMatch::from_line("X-Other")));
    }

    #[test]
    fn a_secret_counts_only_when_its_value_is_known() {
        let secret = SecretRef {
            namespace: "a".into(),
            name: "s".into(),
        };
        let mut header = HeaderMatch::from_line("X-Token");
        header.secret = Some(secret);
        let matches = |header: &HeaderMatch| {
            let rule = Rule {
                headers: vec![header.clone()],
                ..Rule::default()
            };
            rule.matches(&request("GET", "/"))
        };
        assert!(!matches(&header));
        header.value = Some("a b".into());
        assert!(matches(&header));
        header.value = Some("other".into());
        assert!(!matches(&header));
        header.mismatch = Mismatch::Replace;
        assert!(matches(&header));
    }
}
