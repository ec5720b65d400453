//! A node with pods and an agent, for the tests of `namegate agent`.
//!
//! In:  a [`World`], whose host is the node.
//! Out: [`Pod`]s behind routed veth pairs or bridge ports, a [`Node`] with a running agent.
//! Not here: what is promised (`agent_*.rs`).

#![allow(
    dead_code,
    reason = "every test binary uses a part of it, and none all"
)]

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use support::{
    Netns, Output, Process, World, link::add_address, namegate::Client, process::output_of,
    slowness, tools, until, world::address as at,
};
use tempfile::TempDir;

const READY: Duration = Duration::from_secs(20);

/// DNS to the world's resolver, which counts as kube-dns.
pub(crate) const DNS: &str = "
  - toEndpoints:
    - matchLabels: {k8s:io.kubernetes.pod.namespace: kube-system, k8s:k8s-app: kube-dns}
    toPorts:
    - ports: [{port: \"53\", protocol: ANY}]";

/// A policy that allows DNS and these names on 443/TCP.
pub(crate) fn names(policy: &str, selector: &str, names: &[&str]) -> String {
    let names: String = names
        .iter()
        .map(|name| {
            let key = if name.contains('*') {
                "matchPattern"
            } else {
                "matchName"
            };
            format!("    - {key}: \"{name}\"\n")
        })
        .collect();
    let fqdns = if names.is_empty() {
        String::new()
    } else {
        format!(
            "\n  - toFQDNs:\n{names}    toPorts:\n    - ports: [{{port: \"443\", protocol: TCP}}]"
        )
    };
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {policy}}}\nspec:\n  \
         endpointSelector: {selector}\n  egress:{DNS}{fqdns}\n"
    )
}

/// A workload: a namespace behind an interface of the node.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) netns: Netns,
    pub(crate) interface: String,
    pub(crate) v4: String,
    pub(crate) v6: String,
    certificate: PathBuf,
}

impl Pod {
    /// Behind a routed veth pair, as the CNI plugin `ptp` makes it.
    pub(crate) fn routed(world: &World, number: u8) -> Result<Self> {
        let pod = Self::unplugged(world, number)?;
        pod.plug(&world.host)?;
        Ok(pod)
    }

    /// Known, but not connected yet.
    pub(crate) fn unplugged(world: &World, number: u8) -> Result<Self> {
        Ok(Self {
            netns: Netns::new(&format!("pod{number}"))?,
            interface: format!("pod{number}"),
            v4: format!("10.77.{number}.2"),
            v6: format!("fd77:{number}::2"),
            certificate: world.certificate(),
        })
    }

    /// Makes the veth pair, its addresses and routes.
    pub(crate) fn plug(&self, host: &Netns) -> Result<()> {
        self.pair(host)?;
        self.connect(host)
    }

    /// Takes the interface away and puts another one in its place, by the same name and number, in
    /// one go. Returns the number.
    pub(crate) fn replace(&self, host: &Netns) -> Result<u32> {
        let index = self.index(host)?;
        let mut batch = tempfile::NamedTempFile::new()?;
        let (name, netns) = (&self.interface, self.netns.name());
        write!(
            batch,
            "link del {name}\nlink add {name} index {index} type veth peer name eth0 netns {netns}\n"
        )?;
        host.ip(&["-batch", &batch.path().to_string_lossy()])?;
        self.raise(host)?;
        self.connect(host)?;
        ensure!(self.index(host)? == index, "another number");
        Ok(index)
    }

    /// The number of the interface.
    pub(crate) fn index(&self, host: &Netns) -> Result<u32> {
        let shown = host.ip(&["-o", "link", "show", "dev", &self.interface])?;
        let number = shown.split(':').next().unwrap_or_default();
        Ok(number.trim().parse()?)
    }

    fn connect(&self, host: &Netns) -> Result<()> {
        let gateway4 = self
            .v4
            .rsplit_once('.')
            .map_or_else(String::new, |(net, _)| format!("{net}.1"));
        let gateway6 = self.v6.replace("::2", "::1");
        add_address(host, &self.interface, &format!("{gateway4}/24"))?;
        add_address(host, &self.interface, &format!("{gateway6}/64"))?;
        self.configure(&gateway4, &gateway6)
    }

    /// Behind a port of a bridge, as the CNI plugin `bridge` makes it.
    pub(crate) fn bridged(world: &World, number: u8, bridge: &str) -> Result<Self> {
        let mut pod = Self::unplugged(world, number)?;
        pod.v4 = format!("10.78.0.{}", number.saturating_add(10));
        pod.v6 = format!("fd78::{}", number.saturating_add(10));
        pod.pair(&world.host)?;
        world
            .host
            .ip(&["link", "set", &pod.interface, "master", bridge])?;
        pod.configure("10.78.0.1", "fd78::1")?;
        Ok(pod)
    }

    /// Takes the interface away.
    pub(crate) fn unplug(&self, host: &Netns) -> Result<()> {
        host.ip(&["link", "del", &self.interface]).map(drop)
    }

    fn pair(&self, host: &Netns) -> Result<()> {
        host.ip(&[
            "link",
            "add",
            &self.interface,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            self.netns.name(),
        ])?;
        self.raise(host)
    }

    fn raise(&self, host: &Netns) -> Result<()> {
        let dad = format!("net.ipv6.conf.{}.dad_transmits", self.interface);
        host.sysctl(&dad, "0")?;
        self.netns.sysctl("net.ipv6.conf.eth0.dad_transmits", "0")?;
        host.ip(&["link", "set", &self.interface, "up"])?;
        self.netns.ip(&["link", "set", "eth0", "up"])?;
        Ok(())
    }

    fn configure(&self, gateway4: &str, gateway6: &str) -> Result<()> {
        add_address(&self.netns, "eth0", &format!("{}/24", self.v4))?;
        add_address(&self.netns, "eth0", &format!("{}/64", self.v6))?;
        self.netns
            .ip(&["route", "add", "default", "via", gateway4])?;
        self.netns
            .ip(&["-6", "route", "add", "default", "via", gateway6])?;
        Ok(())
    }

    /// A line of shell in the pod.
    pub(crate) fn sh(&self, line: &str) -> Result<Output> {
        output_of(
            self.netns
                .command("bash")
                .args(["-c", line])
                .env("CURL_CA_BUNDLE", &self.certificate),
        )
    }

    /// The same; anything but success is an error.
    pub(crate) fn ok(&self, line: &str) -> Result<String> {
        self.sh(line)?.ok(line)
    }

    /// Resolves a name at the world's resolver.
    pub(crate) fn resolve(&self, name: &str) -> Result<String> {
        self.ok(&format!(
            "dig +time={} +tries=3 +short @{} {name}",
            2 * slowness(),
            at::RESOLVER
        ))
    }

    /// Requests a page from an address, by name, without asking DNS.
    pub(crate) fn get(&self, name: &str, address: &str) -> Result<Output> {
        self.sh(&format!(
            "curl -sS --connect-timeout {} --max-time {} --resolve {name}:443:{address} https://{name}/",
            8 * slowness(),
            15 * slowness()
        ))
    }

    /// The same for a request that should be refused: short.
    pub(crate) fn knock(&self, name: &str, address: &str) -> Result<Output> {
        self.sh(&format!(
            "curl -sS --connect-timeout 1 --max-time 2 -o /dev/null --resolve {name}:443:{address} \
             https://{name}/"
        ))
    }
}

/// The node: forwarding, masquerading, and an agent.
#[derive(Debug)]
pub(crate) struct Node<'w> {
    pub(crate) world: &'w World,
    files: TempDir,
    agent: Option<Process>,
}

impl<'w> Node<'w> {
    /// Prepares the node; the agent is not running yet.
    pub(crate) fn new(world: &'w World) -> Result<Self> {
        let host = &world.host;
        host.sysctl("net.ipv4.ip_forward", "1")?;
        host.sysctl("net.ipv6.conf.all.forwarding", "1")?;
        host.nft(
            "table inet cni { chain post { type nat hook postrouting priority srcnat; \
             oifname eth0 masquerade; }; }",
        )?;
        let files = tempfile::tempdir()?;
        std::fs::create_dir(files.path().join("policies"))?;
        Ok(Self {
            world,
            files,
            agent: None,
        })
    }

    /// A bridge with the addresses of [`Pod::bridged`].
    pub(crate) fn bridge(&self, name: &str) -> Result<()> {
        let host = &self.world.host;
        host.ip(&["link", "add", name, "type", "bridge"])?;
        host.sysctl(&format!("net.ipv6.conf.{name}.dad_transmits"), "0")?;
        host.ip(&["link", "set", name, "up"])?;
        add_address(host, name, "10.78.0.1/24")?;
        add_address(host, name, "fd78::1/64")
    }

    /// Writes a policy file, in one step as `kubectl` and editors do.
    pub(crate) fn policy(&self, file: &str, text: &str) -> Result<()> {
        let path = self.policies().join(file);
        let draft = self.files.path().join("draft");
        std::fs::write(&draft, text)?;
        Ok(std::fs::rename(draft, path)?)
    }

    /// Removes a policy file.
    pub(crate) fn remove_policy(&self, file: &str) -> Result<()> {
        Ok(std::fs::remove_file(self.policies().join(file))?)
    }

    pub(crate) fn policies(&self) -> PathBuf {
        self.files.path().join("policies")
    }

    pub(crate) fn files(&self) -> &Path {
        self.files.path()
    }

    /// Writes the configuration: these pods with `labels` each, and more fields.
    pub(crate) fn configure(&self, pods: &[(&Pod, &str)], more: &str) -> Result<()> {
        let endpoints: String = pods
            .iter()
            .map(|(pod, labels)| {
                format!(
                    "- {{interface: {}, addresses: [{}, \"{}\"], labels: {labels}}}\n",
                    pod.interface, pod.v4, pod.v6
                )
            })
            .collect();
        let files = self.files.path().display();
        let text = format!(
            "endpoints:\n{endpoints}policies: [{files}/policies]\nresolvers: [{}, \"{}\"]\n\
             socket: {files}/agent.sock\nstate: {{directory: {files}/state, pins: {}}}\n{more}\n",
            at::RESOLVER,
            at::RESOLVER6,
            self.pins().display(),
        );
        Ok(std::fs::write(self.config(), text)?)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.files.path().join("agent.yaml")
    }

    /// Where this node's maps are pinned.
    pub(crate) fn pins(&self) -> PathBuf {
        let name = self
            .files
            .path()
            .file_name()
            .map(|name| name.to_string_lossy().replace('.', "_"))
            .unwrap_or_default();
        Path::new("/sys/fs/bpf").join(format!("ngtest-{name}"))
    }

    /// Starts the agent and waits until it is ready.
    pub(crate) fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.ready()
    }

    /// Starts the agent.
    pub(crate) fn launch(&mut self) -> Result<()> {
        self.launch_with(&[])
    }

    /// Starts the agent with these variables.
    pub(crate) fn launch_with(&mut self, variables: &[(&str, &str)]) -> Result<()> {
        self.launch_by(&[], variables)
    }

    /// Starts the agent by another program, which is given all that follows.
    pub(crate) fn launch_by(&mut self, by: &[&str], variables: &[(&str, &str)]) -> Result<()> {
        let namegate = tools::namegate()?;
        let mut command = match by {
            [] => self.world.host.command(namegate),
            [program, words @ ..] => {
                let mut command = self.world.host.command(program);
                command.args(words).arg(namegate);
                command
            }
        };
        command.args(["agent", "--config"]).arg(self.config());
        command.envs(variables.iter().copied());
        self.agent = Some(Process::spawn("namegate agent", &mut command)?);
        Ok(())
    }

    /// Waits until the agent answers.
    pub(crate) fn ready(&mut self) -> Result<()> {
        let host = &self.world.host;
        let socket = self.socket();
        let agent = self.agent.as_mut().context("no agent")?;
        until(READY, "the agent", || {
            if let Err(error) = agent.check() {
                return Some(Err(error));
            }
            let answered = || {
                Client::new(host, socket.clone())
                    .output(&["status"])
                    .is_ok_and(|output| output.status == 0)
            };
            (agent.stderr().contains("ready") && answered()).then_some(Ok(()))
        })?
    }

    /// The agent's process.
    pub(crate) fn agent(&mut self) -> Result<&mut Process> {
        self.agent.as_mut().context("no agent")
    }

    /// What the agent logged.
    pub(crate) fn log(&self) -> String {
        self.agent.as_ref().map(Process::stderr).unwrap_or_default()
    }

    /// Ends the agent as a service manager does.
    pub(crate) fn stop(&mut self) -> Result<Output> {
        let agent = self.agent.as_mut().context("no agent")?;
        agent.signal(nix::sys::signal::Signal::SIGTERM)?;
        let output = agent.wait(READY)?;
        self.agent = None;
        Ok(output)
    }

    /// Kills the agent.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let agent = self.agent.as_mut().context("no agent")?;
        agent.signal(nix::sys::signal::Signal::SIGKILL)?;
        agent.wait(READY)?;
        self.agent = None;
        Ok(())
    }

    /// Takes down what an agent left.
    pub(crate) fn remove(&self) -> Result<Output> {
        let mut command = self.world.host.command(tools::namegate()?);
        command
            .args(["agent", "--remove", "--config"])
            .arg(self.config());
        output_of(&mut command)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.files.path().join("agent.sock")
    }

    pub(crate) fn client(&self) -> Client<'_> {
        Client::new(&self.world.host, self.socket())
    }

    /// The row of an endpoint in `status`.
    pub(crate) fn endpoint(&self, pod: &Pod) -> Result<Value> {
        let status = self.client().json(&["status"])?;
        let rows = status
            .pointer("/agent/endpoints")
            .and_then(Value::as_array)
            .context("endpoints")?;
        rows.iter()
            .find(|row| row.get("interface").and_then(Value::as_str) == Some(&pod.interface))
            .cloned()
            .with_context(|| format!("no {} in {status}", pod.interface))
    }

    /// Waits until an endpoint is in a state.
    pub(crate) fn until_state(&self, pod: &Pod, state: &str) -> Result<Value> {
        until(READY, &format!("{} to be {state}", pod.interface), || {
            let row = self.endpoint(pod).ok()?;
            (row.get("state").and_then(Value::as_str) == Some(state)).then_some(row)
        })
        .with_context(|| format!("{:?}\n{}", self.endpoint(pod), self.log()))
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        self.agent = None;
        // Pinned maps and links outlive the agent on purpose; the test's own go with the test.
        let _ = std::fs::remove_dir_all(self.pins());
    }
}

/// An error that shows everything, unless a request was answered by this server.
pub(crate) fn answered(node: &Node<'_>, output: &Output, address: &str) -> Result<()> {
    let server = output.stdout.split_whitespace().nth(1).unwrap_or_default();
    ensure!(
        output.status == 0 && server == address,
        "no answer of {address}: {output:?}\n{}",
        node.log()
    );
    Ok(())
}
