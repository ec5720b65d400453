//! Everybody of the matrix: workloads of two namespaces, their node, other nodes, the outside.
//!
//! In:  a [`World`], whose host is the node.
//! Out: [`Village`]: who is where, a running agent, addresses of services, servers everywhere.
//! Not here: what they may do (`cases`).

use std::net::IpAddr;

use anyhow::{Context, Result};
use netns::echo::Echo;
use support::{
    Netns, World,
    world::address::{self as at, ip},
};

use crate::agent::{Node, Pod};

/// Ports that everybody answers on.
const TCP: &[u16] = &[8080, 8081, 8090, 8091];
const UDP: &[u16] = &[5353, 4242];

/// Somebody.
pub(crate) struct Actor<'v> {
    pub(crate) netns: &'v Netns,
    /// What it asks from; none for whatever its kernel picks.
    pub(crate) source: Option<IpAddr>,
    /// Where it is asked.
    pub(crate) address: IpAddr,
}

/// Everybody.
pub(crate) struct Village<'w> {
    pub(crate) node: Node<'w>,
    pods: [Pod; 5],
    _servers: Vec<Echo>,
}

impl<'w> Village<'w> {
    /// Builds it around an agent that restricts nothing yet.
    pub(crate) fn new(world: &'w World, first: &str) -> Result<Self> {
        let mut node = Node::new(world)?;
        let pods = [1, 2, 3, 4, 5].map(|number| Pod::routed(world, number));
        let [a, b, c, d, e] = pods;
        let pods = [a?, b?, c?, d?, e?];
        world
            .world
            .ip(&["route", "add", "10.77.0.0/16", "via", at::HOST4])?;
        world
            .world
            .ip(&["-6", "route", "add", "fd77::/16", "via", at::HOST6])?;
        let [client, client2, echo, other, stray] = &pods;
        let echo4 = &echo.v4;
        // What kube-proxy does for services and node ports.
        world.host.nft(&format!(
            "table ip services {{ \
             chain pre {{ type nat hook prerouting priority dstnat; \
             ip daddr {{ 10.96.0.9, 10.96.0.11 }} tcp dport {{ 80, 81 }} dnat to {echo4}:8080; \
             iifname eth0 tcp dport 30080 dnat to {echo4}:8080; }}; \
             chain post {{ type nat hook postrouting priority srcnat; \
             iifname eth0 ct status dnat masquerade; }}; }}"
        ))?;
        let files = node.files().display().to_string();
        let endpoints: String = [
            (client, "test", "client", "client", ""),
            (client2, "test", "client", "client2", ""),
            (
                echo,
                "test",
                "echo",
                "echo",
                ", ports: [{name: http-8080, port: 8080}, {name: dns, port: 5353, protocol: UDP}]",
            ),
            (other, "other", "echo", "elsewhere", ""),
        ]
        .iter()
        .map(|(pod, namespace, kind, name, more)| {
            format!(
                "- {{interface: {}, name: {name}, namespace: {namespace}, serviceAccount: {name}, \
                 addresses: [{}, \"{}\"], labels: {{kind: {kind}, name: {name}}}{more}}}\n",
                pod.interface, pod.v4, pod.v6
            )
        })
        .collect();
        std::fs::write(
            node.config(),
            format!(
                "endpoints:\n{endpoints}policies: [{files}/policies]\nworld: {files}/world.yaml\n\
                 resolvers: [{}]\nsocket: {files}/agent.sock\nmetrics: null\n\
                 state: {{directory: {files}/state, pins: {}}}\n",
                at::RESOLVER,
                node.pins().display(),
            ),
        )?;
        std::fs::write(
            node.files().join("world.yaml"),
            format!(
                "nodes:\n- {{name: n1, local: true, ips: [{}, \"{}\"], labels: {{role: worker}}}}\n\
                 - {{name: n2, ips: [{}, \"{}\"], labels: {{role: worker}}}}\n\
                 kubeAPIServer: [{}, \"{}\"]\n\
                 namespaces:\n- {{name: test, labels: {{team: tests}}}}\n\
                 - {{name: other, labels: {{team: others}}}}\n\
                 endpoints:\n\
                 - {{name: stray, namespace: test, labels: {{\"reserved:unmanaged\": \"\"}}, \
                 ips: [{}, \"{}\"]}}\n\
                 - {{name: far, namespace: test, labels: {{name: far}}, ips: [203.0.113.20], node: n2}}\n\
                 - {{name: health, namespace: test, labels: {{\"reserved:health\": \"\"}}, ips: [203.0.113.21]}}\n\
                 - {{name: ingress, namespace: test, labels: {{\"reserved:ingress\": \"\"}}, ips: [203.0.113.22]}}\n\
                 - {{name: init, namespace: test, labels: {{\"reserved:init\": \"\"}}, ips: [203.0.113.23]}}\n\
                 - {{name: abroad, namespace: test, labels: {{name: abroad, \
                 io.cilium.k8s.policy.cluster: west}}, ips: [203.0.113.24]}}\n\
                 services:\n\
                 - {{name: git, namespace: test, ips: [10.96.0.9], \
                 ports: [{{port: 80, targetPort: 8080}}], backends: [test/echo]}}\n\
                 - {{name: mixed, namespace: test, ips: [10.96.0.11], \
                 ports: [{{port: 80, targetPort: 8080}}], backends: [test/echo, other/elsewhere]}}\n",
                at::HOST4,
                at::HOST6,
                at::UPLINK4,
                at::UPLINK6,
                at::EVIL,
                at::EVIL6,
                stray.v4,
                stray.v6,
            ),
        )?;
        node.policy("row.yaml", first)?;
        let mut servers = vec![
            Echo::start(&world.host, TCP, UDP)?,
            Echo::start(&world.world, TCP, UDP)?,
        ];
        for pod in &pods {
            servers.push(Echo::start(&pod.netns, TCP, UDP)?);
        }
        node.start()?;
        for pod in pods.iter().take(4) {
            node.until_state(pod, "enforcing")?;
        }
        Ok(Self {
            node,
            pods,
            _servers: servers,
        })
    }

    /// Somebody by name, over one family; none who has no address of it.
    pub(crate) fn actor(&self, name: &str, v4: bool) -> Result<Option<Actor<'_>>> {
        let world = self.node.world;
        let one_of = |four: &str, six: Option<&str>| -> Result<Option<IpAddr>> {
            match (v4, six) {
                (true, _) => ip(four).map(Some),
                (false, Some(six)) => ip(six).map(Some),
                (false, None) => Ok(None),
            }
        };
        if let Some(pod) = self.pod(name) {
            let address = one_of(&pod.v4, Some(&pod.v6))?;
            return Ok(address.map(|address| Actor {
                netns: &pod.netns,
                source: Some(address),
                address,
            }));
        }
        let (netns, has_source, address) = match name {
            "host" => (&world.host, false, one_of(at::HOST4, Some(at::HOST6))?),
            "remote" => (&world.world, true, one_of(at::UPLINK4, Some(at::UPLINK6))?),
            "outside" | "nodeport" => {
                (&world.world, true, one_of(at::EXAMPLE, Some(at::EXAMPLE6))?)
            }
            "outside2" => (&world.world, true, one_of(at::OTHER, Some(at::OTHER6))?),
            "api" => (&world.world, true, one_of(at::EVIL, Some(at::EVIL6))?),
            "far" => (&world.world, true, one_of("203.0.113.20", None)?),
            "health" => (&world.world, true, one_of("203.0.113.21", None)?),
            "ingress" => (&world.world, true, one_of("203.0.113.22", None)?),
            "init" => (&world.world, true, one_of("203.0.113.23", None)?),
            "abroad" => (&world.world, true, one_of("203.0.113.24", None)?),
            "service" => (&world.world, true, one_of("10.96.0.9", None)?),
            "mixed" => (&world.world, true, one_of("10.96.0.11", None)?),
            _ => anyhow::bail!("nobody is called `{name}`"),
        };
        Ok(address.map(|address| Actor {
            netns,
            source: has_source.then_some(address),
            address,
        }))
    }

    /// A workload by name.
    pub(crate) fn pod(&self, name: &str) -> Option<&Pod> {
        let names = ["client", "client2", "echo", "other", "stray"];
        let at = names.iter().position(|known| *known == name)?;
        self.pods.get(at)
    }

    /// Puts the policies of a case in force.
    pub(crate) fn enforce(&self, policies: &str) -> Result<()> {
        self.changing(|| self.node.policy("row.yaml", policies))
    }

    /// Says something else about the world.
    pub(crate) fn becomes(&self, before: &str, after: &str) -> Result<()> {
        let path = self.node.files().join("world.yaml");
        let text = std::fs::read_to_string(&path)?;
        anyhow::ensure!(text.contains(before), "`{before}` is not in {text}");
        let draft = self.node.files().join("world.draft");
        std::fs::write(&draft, text.replace(before, after))?;
        self.changing(|| Ok(std::fs::rename(&draft, &path)?))
    }

    /// Changes files, and waits until what they say is in force.
    fn changing(&self, change: impl FnOnce() -> Result<()>) -> Result<()> {
        let since = || -> Result<String> {
            let status = self.node.client().json(&["status"])?;
            let since = status.pointer("/agent/policies-since");
            Ok(since.context("policies-since")?.to_string())
        };
        let before = since()?;
        change()?;
        support::until(
            std::time::Duration::from_secs(30),
            "the policies to be in force",
            || since().is_ok_and(|now| now != before).then_some(()),
        )
        .with_context(|| self.node.log())
    }
}
