//! Kafka requests: which call, about which topics, by whom.
//!
//! In:  `rules.kafka`, and one request.
//! Out: whether rules allow it.
//! Not here: the wire format.
//!
//! Meaning: `pkg/policy/api/kafka` and `proxylib/kafka` of Cilium's proxy.

use std::sync::Arc;

/// How long a topic may be.
pub const MAX_TOPIC: usize = 255;

/// The calls, by their number.
pub const API_KEYS: [&str; 34] = [
    "produce",
    "fetch",
    "offsets",
    "metadata",
    "leaderandisr",
    "stopreplica",
    "updatemetadata",
    "controlledshutdown",
    "offsetcommit",
    "offsetfetch",
    "findcoordinator",
    "joingroup",
    "heartbeat",
    "leavegroup",
    "syncgroup",
    "describegroups",
    "listgroups",
    "saslhandshake",
    "apiversions",
    "createtopics",
    "deletetopics",
    "deleterecords",
    "initproducerid",
    "offsetforleaderepoch",
    "addpartitionstotxn",
    "addoffsetstotxn",
    "endtxn",
    "writetxnmarkers",
    "txnoffsetcommit",
    "describeacls",
    "createacls",
    "deleteacls",
    "describeconfigs",
    "alterconfigs",
];

/// What `role: produce` stands for.
const PRODUCE: &[u16] = &[0, 3, 18];
/// What `role: consume` stands for.
const CONSUME: &[u16] = &[1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 18];

/// One element of `rules.kafka`. What is not written does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The calls.
    pub calls: Calls,
    /// The version of the call.
    pub api_version: Option<i16>,
    /// Who asks.
    pub client_id: Option<Arc<str>>,
    /// About what.
    pub topic: Option<Arc<str>>,
}

/// Which calls a rule is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Calls {
    /// Every one.
    #[default]
    Any,
    /// `apiKey`.
    One(u16),
    /// `role: produce`.
    Produce,
    /// `role: consume`.
    Consume,
}

impl Calls {
    /// Whether a call is one of them.
    pub fn contains(self, key: u16) -> bool {
        match self {
            Self::Any => true,
            Self::One(own) => own == key,
            Self::Produce => PRODUCE.contains(&key),
            Self::Consume => CONSUME.contains(&key),
        }
    }
}

/// One request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The number of the call.
    pub api_key: u16,
    /// Its version.
    pub api_version: i16,
    /// Who asks.
    pub client_id: String,
    /// About what; empty where the call is about no topic.
    pub topics: Vec<String>,
}

/// The number of a call by its name, in any case.
pub fn api_key(name: &str) -> Option<u16> {
    let at = API_KEYS
        .iter()
        .position(|known| known.eq_ignore_ascii_case(name))?;
    u16::try_from(at).ok()
}

/// Whether a topic can have this name.
pub fn is_topic(text: &str) -> bool {
    text.len() <= MAX_TOPIC
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Whether the rules allow it: every topic needs a rule, and a request without topics any rule
/// about its call.
pub fn allows(rules: &[Rule], request: &Request) -> bool {
    let fits = |rule: &&Rule| rule.matches_all_but_topic(request);
    if request.topics.is_empty() {
        return rules.iter().any(|rule| fits(&rule));
    }
    request.topics.iter().all(|topic| {
        rules
            .iter()
            .filter(fits)
            .any(|rule| rule.topic.as_ref().is_none_or(|own| **own == **topic))
    })
}

impl Rule {
    fn matches_all_but_topic(&self, request: &Request) -> bool {
        self.calls.contains(request.api_key)
            && self
                .api_version
                .is_none_or(|own| own == request.api_version)
            && self
                .client_id
                .as_ref()
                .is_none_or(|own| **own == *request.client_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(key: &str, topics: &[&str]) -> Request {
        Request {
            api_key: api_key(key).unwrap(),
            topics: topics.iter().map(|t| (*t).to_owned()).collect(),
            ..Request::default()
        }
    }

    fn rule(calls: Calls, topic: &str) -> Rule {
        Rule {
            calls,
            topic: Some(topic.into()),
            ..Rule::default()
        }
    }

    #[test]
    fn a_role_is_its_calls_and_each_topic_needs_a_rule() {
        let rules = [
            rule(Calls::Produce, "orders"),
            rule(Calls::Consume, "notifications"),
        ];
        assert!(allows(&rules, &about("Produce", &["orders"])));
        assert!(!allows(&rules, &about("produce", &["notifications"])));
        assert!(!allows(&rules, &about("produce", &["orders", "secrets"])));
        assert!(allows(&rules, &about("fetch", &["notifications"])));
        assert!(!allows(&rules, &about("fetch", &["orders"])));
        // Both roles may ask what there is, each about its own topic.
        assert!(allows(
            &rules,
            &about("metadata", &["orders", "notifications"])
        ));
        assert!(allows(&rules, &about("heartbeat", &[])));
        assert!(!allows(&rules, &about("createtopics", &["orders"])));
    }

    #[test]
    fn version_and_client_have_to_be_the_written_ones() {
        let rules = [Rule {
            calls: Calls::One(0),
            api_version: Some(2),
            client_id: Some("app".into()),
            topic: None,
        }];
        let mut request = about("produce", &["any"]);
        assert!(!allows(&rules, &request));
        request.api_version = 2;
        assert!(!allows(&rules, &request));
        request.client_id = "app".into();
        assert!(allows(&rules, &request));
        assert!(!allows(&[], &request));
    }

    #[test]
    fn names_of_calls_have_any_case_and_topics_few_characters() {
        assert_eq!(api_key("alterConfigs"), Some(33));
        assert_eq!(api_key("nothing"), None);
        assert!(is_topic("a.b_c-D9"));
        assert!(!is_topic("a b"));
        assert!(!is_topic(&"a".repeat(256)));
    }
}
