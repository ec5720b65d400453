//! Configuration files, good and bad.

use std::path::Path;

use super::*;

const GOOD: &str = "\
endpoints:
- interface: web0
  addresses: [10.1.0.2, 'fd00::2']
  labels: {app: web}
  namespace: shop
- interface: db0
  addresses: [10.1.0.3]
  mac: 02:00:5e:10:00:01
policies: [/etc/namegate/policies]
resolvers: [10.1.0.53, {address: 192.0.2.53}]
";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("agent.yaml"), text)
}

#[test]
fn a_file_with_defaults() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.endpoints.len(), 2);
    assert_eq!(config.endpoints[1].mac.unwrap().0[5], 1);
    assert_eq!(config.addresses_per_endpoint(), 512);
    let facts = config.endpoints[0].facts();
    assert_eq!((&*facts.namespace, &*facts.name), ("shop", "web0"));
    assert_eq!(facts.labels["app"], "web");
    assert!(config.resolvers[0].label_set().is_some());
    assert!(config.resolvers[1].label_set().is_none());
    assert_eq!(config.metrics.unwrap().port(), 9963);
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (text, said) in [
        (GOOD.replace("policies:", "polices:"), "polices"),
        (
            GOOD.replace("10.1.0.3", "10.1.0.2"),
            "two endpoints cannot share",
        ),
        (GOOD.replace("db0", "web0"), "another endpoint"),
        (
            GOOD.replace("10.1.0.3", "127.0.0.1"),
            "cannot be a workload's",
        ),
        (
            GOOD.replace("02:00:5e:10:00:01", "02:00"),
            "hardware address",
        ),
        (format!("{GOOD}sizes: {{learned: 10}}\n"), "sizes.learned"),
        (
            format!("{GOOD}limits: {{addresses: 100000}}\n"),
            "limits.addresses",
        ),
        (
            format!("{GOOD}steering: {{mark: 0x1000}}\n"),
            "steering.mark",
        ),
        (format!("{GOOD}metrics: here\n"), "metrics"),
    ] {
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains("agent.yaml"), "{error}");
        assert!(error.contains(said), "`{said}` is missing in: {error}");
    }
}

#[test]
fn metrics_can_be_switched_off() {
    assert_eq!(
        parse(&format!("{GOOD}metrics: null\n")).unwrap().metrics,
        None
    );
}
