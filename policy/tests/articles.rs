//! The policies of the two articles and of `examples/policies`: loaded from their files, compiled
//! for the pods they are about.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::Path;

use identity::{IdentityId, Label, LabelIdentities, LabelSet, reserved};
use policy::{
    compile::{CompileInput, EnforcementMode, Identities, SelectorTable, compile},
    compiled::{Action, Direction, DnsVerdict, EndpointPolicy, Flow, L4, Outcome, Peer, Protocol},
    fqdn::Fqdn,
    l7::{Message, http, kafka},
    lint, parse, select,
};

fn read(path: &str) -> (String, Vec<u8>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    (path.to_owned(), std::fs::read(root.join(path)).unwrap())
}

fn load(path: &str) -> Vec<policy::model::Policy> {
    let (name, bytes) = read(path);
    let parsed = parse::bytes(&name, &bytes, &parse::Limits::default());
    parsed
        .unwrap_or_else(|errors| panic!("{errors:#?}"))
        .policies
}

fn pod(namespace: &str, labels: &[(&str, &str)]) -> LabelSet {
    let own = labels.iter().map(|(k, v)| Label::k8s(k, v));
    own.chain([Label::k8s("io.kubernetes.pod.namespace", namespace)])
        .collect()
}

struct World {
    labels: LabelIdentities,
}

impl World {
    fn new(pods: &[LabelSet]) -> Self {
        let mut labels = LabelIdentities::default();
        for pod in pods {
            labels.intern(pod).unwrap();
        }
        Self { labels }
    }

    fn id(&mut self, pod: &LabelSet) -> IdentityId {
        self.labels.intern(pod).unwrap()
    }

    fn compile(&self, path: &str, subject: &LabelSet) -> EndpointPolicy {
        let policies = load(path);
        assert_eq!(
            select::selecting(&policies, subject, "default").len(),
            1,
            "{path}"
        );
        let identities = Identities::new(
            "default",
            self.labels.iter().map(|(id, labels)| (id, labels.clone())),
            [],
        );
        let input = CompileInput {
            policies: &policies,
            subject,
            identities: &identities,
            mode: EnforcementMode::Default,
            allow_local_host: true,
            steer_dns: false,
        };
        compile(&input, &mut SelectorTable::default()).unwrap()
    }
}

/// What a longest-prefix look-up for one peer finds.
fn action(
    policy: &EndpointPolicy,
    direction: Direction,
    peer: Peer,
    proto: Protocol,
    port: u16,
) -> Option<Action> {
    policy
        .entries
        .iter()
        .filter(|e| e.direction == direction && e.peer == peer && e.l4.contains(proto, port))
        .max_by_key(|e| e.l4.specificity())
        .map(|e| e.action)
}

fn name(text: &str) -> Fqdn {
    Fqdn::parse(text).unwrap()
}

#[test]
fn argocd_may_reach_github_by_name_and_its_resolver() {
    for (path, apex) in [
        ("articles/argocd-egress.yaml", false),
        ("policies/argocd-to-github.yaml", true),
    ] {
        let argocd = pod("argocd", &[("app", "argocd-server")]);
        let dns = pod("kube-system", &[("k8s-app", "kube-dns")]);
        let mut world = World::new(&[argocd.clone(), dns.clone()]);
        let policy = world.compile(path, &argocd);
        assert!(policy.default_deny_egress && !policy.default_deny_ingress);

        let learned = |text: &str| policy.entries_of_set(&policy.selectors_matching(&name(text)));
        for allowed in [
            "api.github.com",
            "codeload.github.com",
            "raw.githubusercontent.com",
        ] {
            let entries = learned(allowed);
            assert_eq!(entries.len(), 1, "{allowed}");
            assert_eq!(entries[0].l4, L4::port(Protocol::Tcp, 443));
            assert_eq!(entries[0].action, Action::Allow);
        }
        assert_eq!(learned("github.com").len(), usize::from(apex), "{path}");
        for other in ["a.b.github.com", "example.com", "evilgithub.com"] {
            assert!(learned(other).is_empty(), "{other}");
        }

        // The plain companion rule is enough to be steered, for any name, and no SCTP.
        let resolver = world.id(&dns);
        for proto in [Protocol::Udp, Protocol::Tcp] {
            let found = action(
                &policy,
                Direction::Egress,
                Peer::Identity(resolver),
                proto,
                53,
            );
            assert_eq!(found, Some(Action::RedirectDns));
        }
        let sctp = action(
            &policy,
            Direction::Egress,
            Peer::Identity(resolver),
            Protocol::Sctp,
            53,
        );
        assert_eq!(sctp, Some(Action::Allow));
        let verdict = policy.may_ask(resolver, false, 53, &name("example.com"));
        let DnsVerdict::Allowed { rule: Some(rule) } = verdict else {
            panic!("{verdict:?}");
        };
        assert_eq!(rule.text, "toEndpoints (io.cilium.k8s.policy.cluster=default)".replace(
            "(io.cilium.k8s.policy.cluster=default)",
            "(k8s:io.cilium.k8s.policy.cluster=default, k8s:io.kubernetes.pod.namespace=kube-system, k8s:k8s-app=kube-dns) 53/ANY"
        ));
        assert!(
            !policy
                .may_ask(reserved::WORLD_IPV4, false, 53, &name("github.com"))
                .is_allowed()
        );
    }
}

#[test]
fn argocd_apex_is_pointed_out_by_lint_until_it_is_named() {
    let notes = |path| {
        let warnings = lint::policies(&load(path));
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let of_article = notes("articles/argocd-egress.yaml");
    assert_eq!(
        of_article[0],
        "articles/argocd-egress.yaml:11: note: `*.github.com` does not match `github.com` itself; \
         add it if it is needed"
    );
    let of_example = notes("policies/argocd-to-github.yaml");
    assert!(
        !of_example.iter().any(|w| w.contains("`github.com`")),
        "{of_example:?}"
    );
}

#[test]
fn the_reasons_given_name_the_line() {
    let argocd = pod("argocd", &[]);
    let policy = World::new(&[]).compile("policies/argocd-to-github.yaml", &argocd);
    let set = policy.selectors_matching(&name("github.com"));
    let entry = &policy.entries_of_set(&set)[0];
    let rules = policy.rule_set(entry.rule_set);
    assert_eq!(
        rules[0].to_string(),
        "policies/argocd-to-github.yaml:12: toFQDNs matchName \"github.com\" 443/TCP \
         (CiliumNetworkPolicy/argocd/argocd-to-github)"
    );
}

#[test]
fn ci_runner_may_ask_for_its_four_names_only() {
    let dns = pod("kube-system", &[("k8s-app", "kube-dns")]);
    let runner = pod("default", &[]);
    let mut world = World::new(&[dns.clone(), runner.clone()]);
    let policy = world.compile("policies/ci-runner.yaml", &runner);
    let resolver = world.id(&dns);
    for tcp in [false, true] {
        assert!(
            policy
                .may_ask(resolver, tcp, 53, &name("Static.Crates.io"))
                .is_allowed()
        );
        let verdict = policy.may_ask(resolver, tcp, 53, &name("www.crates.io"));
        let DnsVerdict::Refused { policies, nearest } = verdict else {
            panic!("{verdict:?}");
        };
        assert_eq!(
            policies[0].to_string(),
            "CiliumNetworkPolicy/default/ci-runner"
        );
        assert!(
            nearest
                .unwrap()
                .text
                .contains("dns matchName \"crates.io\"")
        );
    }
}

#[test]
fn blog_is_open_to_traefik_the_node_and_health_only() {
    let blog = pod("blog", &[("app.kubernetes.io/name", "blog")]);
    let traefik = pod(
        "traefik",
        &[("app.kubernetes.io/instance", "traefik-traefik")],
    );
    let impostor = pod("blog", &[("app.kubernetes.io/instance", "traefik-traefik")]);
    let mut world = World::new(&[blog.clone(), traefik.clone(), impostor.clone()]);
    let policy = world.compile("articles/blog-policy.yaml", &blog);
    assert!(policy.default_deny_ingress && !policy.default_deny_egress);
    let ingress = |peer, port| action(&policy, Direction::Ingress, peer, Protocol::Tcp, port);
    let traefik = Peer::Identity(world.id(&traefik));
    assert_eq!(ingress(traefik, 80), Some(Action::Allow));
    assert_eq!(ingress(traefik, 81), None);
    assert_eq!(ingress(Peer::Identity(world.id(&impostor)), 80), None);
    assert_eq!(
        ingress(Peer::Identity(reserved::HOST), 9999),
        Some(Action::Allow)
    );
    assert_eq!(
        ingress(Peer::Identity(reserved::HEALTH), 4240),
        Some(Action::Allow)
    );
    assert_eq!(ingress(Peer::Any, 80), None);
}

#[test]
fn the_database_is_open_to_its_app_only() {
    let db = pod("webapp", &[("app", "postgres")]);
    let app = pod("webapp", &[("app", "webapp")]);
    let other = pod("other", &[("app", "webapp")]);
    let mut world = World::new(&[db.clone(), app.clone(), other.clone()]);
    let policy = world.compile("articles/webapp-db-policy.yaml", &db);
    let ingress = |peer, port| action(&policy, Direction::Ingress, peer, Protocol::Tcp, port);
    assert_eq!(
        ingress(Peer::Identity(world.id(&app)), 5432),
        Some(Action::Allow)
    );
    assert_eq!(ingress(Peer::Identity(world.id(&other)), 5432), None);
    assert_eq!(ingress(Peer::Identity(world.id(&db)), 5432), None);
}

#[test]
fn default_deny_leaves_dns_to_kube_system_and_the_node() {
    let pod_ = pod("production", &[("app", "x")]);
    let dns = pod("kube-system", &[("k8s-app", "kube-dns")]);
    let mut world = World::new(&[pod_.clone(), dns.clone()]);
    let policy = world.compile("articles/default-deny.yaml", &pod_);
    assert!(policy.default_deny_egress && policy.default_deny_ingress);
    let resolver = Peer::Identity(world.id(&dns));
    let egress = |peer, proto, port| action(&policy, Direction::Egress, peer, proto, port);
    for proto in [Protocol::Udp, Protocol::Tcp, Protocol::Sctp] {
        assert_eq!(egress(resolver, proto, 53), Some(Action::Allow));
        assert_eq!(egress(resolver, proto, 54), None);
    }
    let ingress: Vec<_> = policy
        .entries
        .iter()
        .filter(|e| e.direction == Direction::Ingress)
        .collect();
    assert_eq!(ingress.len(), 1);
    assert_eq!(ingress[0].peer, Peer::Identity(reserved::HOST));
    assert!(policy.rule_set(ingress[0].rule_set).is_empty());
}

#[test]
fn an_external_api_without_a_dns_rule_is_pointed_out() {
    let backend = pod("default", &[("app", "backend")]);
    let policies = load("articles/allow-external-api.yaml");
    let policy = World::new(&[]).compile("articles/allow-external-api.yaml", &backend);
    let entries = policy.entries_of_set(&policy.selectors_matching(&name("api.stripe.com")));
    // No protocol means TCP, UDP and SCTP.
    assert_eq!(entries.len(), 3);
    let warnings = lint::endpoint(&policies, &policy);
    assert_eq!(warnings[0].advice, lint::Advice::NoDnsPath);
}

/// What the proxy of the only grant says, once there is one.
fn inside(policy: &EndpointPolicy, peer: IdentityId, port: u16, message: Message<'_>) -> bool {
    let verdict = policy.judge(&Flow {
        direction: Direction::Ingress,
        peer,
        learned: &[],
        proto: Some(Protocol::Tcp),
        port,
    });
    assert_eq!(verdict.outcome, verdict.datapath);
    assert!(matches!(verdict.outcome, Outcome::Redirected(_)));
    verdict.allows(message)
}

#[test]
fn the_frontend_may_get_health_and_v1_and_nothing_is_open_without_a_proxy() {
    let frontend = pod("production", &[("app", "frontend")]);
    let api = pod("production", &[("app", "api-server")]);
    let mut world = World::new(&[frontend.clone(), api.clone()]);
    let policy = world.compile("articles/api-server-policy.yaml", &api);
    let frontend = Peer::Identity(world.id(&frontend));
    assert_eq!(
        action(&policy, Direction::Ingress, frontend, Protocol::Tcp, 8080),
        Some(Action::NeedsProxy)
    );
    let Peer::Identity(frontend) = frontend else {
        panic!()
    };
    for (method, path, expected) in [
        ("GET", "/api/health", true),
        ("GET", "/api/v1/users", true),
        ("POST", "/api/v1/users", false),
        ("GET", "/api/healthz", false),
        ("GET", "/admin", false),
    ] {
        let request = http::Request {
            method: method.into(),
            path: path.into(),
            ..http::Request::default()
        };
        let allowed = inside(&policy, frontend, 8080, Message::Http(&request));
        assert_eq!(allowed, expected, "{method} {path}");
    }
}

#[test]
fn orders_are_produced_and_notifications_consumed() {
    let orders = pod("production", &[("app", "orders")]);
    let kafka_pod = pod("production", &[("app", "kafka")]);
    let mut world = World::new(&[orders.clone(), kafka_pod.clone()]);
    let policy = world.compile("articles/kafka.yaml", &kafka_pod);
    let orders = world.id(&orders);
    for (key, topic, expected) in [
        ("produce", "orders", true),
        ("fetch", "notifications", true),
        ("produce", "notifications", false),
        ("fetch", "orders", false),
        ("deletetopics", "orders", false),
    ] {
        let request = kafka::Request {
            api_key: kafka::api_key(key).unwrap(),
            topics: vec![topic.into()],
            ..kafka::Request::default()
        };
        let allowed = inside(&policy, orders, 9092, Message::Kafka(&request));
        assert_eq!(allowed, expected, "{key} {topic}");
    }
}
