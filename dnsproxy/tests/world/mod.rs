//! A client, the proxy's gateway, the host and a resolver, in four network namespaces.
//!
//! In:  root, `ip`, `nft`, `unbound`.
//! Out: a running shard between client and resolver, steered to by nft instead of the kernel
//!      program, with a map writer that counts and can be told to fail.
//! Not here: what is tested (`udp`, `tcp`).
//!
//! client 10.77.0.2 ── 10.77.0.1 gateway ┆ host 10.78.0.1 ── 10.78.0.53 resolver
//!
//! There is no route from the gateway to the resolver: whatever gets there left from a socket that
//! was opened in the host's namespace.

#![expect(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

pub mod message;

use std::{
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use dnsproxy::{
    ControlMsg, ListenerSpec, Listeners, ShardCounters, ShardThread, TcpLimits, Upstreams, entropy,
    host_opener,
};
use dnsproxy_core::{
    CacheRow, Config, Core, Counters, EndpointSnapshot, Learned, LearnedWriter, QueryRecord,
    Snapshot, WriteError,
};
use identity::{EndpointId, SelectorId};
use policy::{
    compiled::{DnsNames, DnsRule, DnsRuleKind, EndpointPolicy, Peer, PortPrefix},
    fqdn::NameSelector,
};
use support::{
    Netns, Process,
    link::{End, add_address, wire},
    tools,
    wait::until_true,
};
use tempfile::TempDir;
use tokio::sync::oneshot;

pub const CLIENT4: &str = "10.77.0.2";
pub const CLIENT6: &str = "fd77::2";
/// An address on the client's interface that is no endpoint's.
pub const STRANGER4: &str = "10.77.0.3";
/// Where unbound listens.
pub const RESOLVER4: &str = "10.78.0.53";
pub const RESOLVER6: &str = "fd78::53";
/// An address of the resolver's namespace where nothing listens.
pub const NOBODY4: &str = "10.78.0.54";
/// The same, for resolvers that a test writes itself.
pub const OWN4: &str = "10.78.0.55";
pub const ENDPOINT: EndpointId = EndpointId::new(7);

/// What the map writer was told.
#[derive(Debug, Default)]
pub struct Written {
    pub puts: Vec<Learned>,
    pub removes: usize,
    /// Every put fails as a full map does.
    pub full: bool,
}

struct CountingWriter(Arc<Mutex<Written>>);

impl LearnedWriter for CountingWriter {
    fn put(&mut self, learned: &Learned) -> Result<(), WriteError> {
        let mut written = self.0.lock().unwrap();
        if written.full {
            return Err(WriteError::Full {
                map: "LEARNED",
                capacity: 1,
            });
        }
        written.puts.push(learned.clone());
        Ok(())
    }

    fn remove(&mut self, _: EndpointId, _: IpAddr) -> Result<(), WriteError> {
        self.0.lock().unwrap().removes += 1;
        Ok(())
    }
}

/// Everything; taken down in the order of the fields.
pub struct World {
    pub shard: Option<ShardThread>,
    written: Arc<Mutex<Written>>,
    records: Arc<Mutex<Vec<QueryRecord>>>,
    _unbound: Process,
    pub client: Netns,
    pub gateway: Netns,
    pub host: Netns,
    pub resolver: Netns,
    _files: TempDir,
}

impl World {
    pub fn new() -> Self {
        Self::with_limits(TcpLimits::default())
    }

    pub fn with_limits(tcp: TcpLimits) -> Self {
        tools::require_all().unwrap();
        let [client, gateway, host, resolver] =
            ["dpclient", "dpgate", "dphost", "dpserver"].map(|role| Netns::new(role).unwrap());
        connect(&client, &gateway, &host, &resolver);
        let files = tempfile::tempdir().unwrap();
        let unbound = start_unbound(&resolver, &files);
        until_true(Duration::from_secs(20), "unbound", || {
            [RESOLVER4, RESOLVER6].iter().all(|server| {
                let at = format!("@{server}");
                let args = ["+time=1", "+tries=1", "+short", &at, "a.example.test"];
                host.output("dig", &args)
                    .is_ok_and(|output| output.stdout.contains("203.0.113."))
            })
        })
        .unwrap();

        let written = Arc::new(Mutex::new(Written::default()));
        let records = Arc::new(Mutex::new(Vec::new()));
        let spec = ListenerSpec {
            tcp,
            ..ListenerSpec::new([PORT])
        };
        let listeners = gateway.run(|| Listeners::open(&spec)).unwrap().unwrap();
        assert!(listeners.has_ipv6());
        let upstreams = Upstreams::new(host.run(host_opener).unwrap().unwrap());
        let core = Core::new(Config::default(), entropy().unwrap());
        let writer = CountingWriter(Arc::clone(&written));
        let heard = Arc::clone(&records);
        let record = move |record| heard.lock().unwrap().push(record);
        let shard = gateway
            .run(|| dnsproxy::spawn("shard", core, listeners, upstreams, writer, record))
            .unwrap()
            .unwrap();
        let world = Self {
            shard: Some(shard),
            written,
            records,
            _unbound: unbound,
            client,
            gateway,
            host,
            resolver,
            _files: files,
        };
        world.tell(ControlMsg::Snapshot(Box::new(snapshot(1, ENDPOINT))));
        world.counters();
        world
    }

    pub fn tell(&self, message: ControlMsg) {
        let shard = self.shard.as_ref().unwrap();
        shard.control.blocking_send(message).unwrap();
    }

    pub fn counters(&self) -> (ShardCounters, Counters) {
        let (answer, counters) = oneshot::channel();
        self.tell(ControlMsg::Counters(answer));
        counters.blocking_recv().unwrap()
    }

    pub fn cache(&self) -> Vec<CacheRow> {
        let (answer, rows) = oneshot::channel();
        let endpoint = Some(ENDPOINT);
        self.tell(ControlMsg::CacheRows { endpoint, answer });
        rows.blocking_recv().unwrap()
    }

    pub fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap()
    }

    pub fn records(&self) -> Vec<QueryRecord> {
        self.records.lock().unwrap().clone()
    }

    /// Runs dig in the client's namespace: its status and output.
    pub fn dig(&self, args: &str) -> (i32, String) {
        let mut all = vec!["+tries=1", "+time=3"];
        all.extend(args.split(' '));
        let output = self.client.output("dig", &all).unwrap();
        (output.status, output.stdout)
    }

    /// A TCP connection of the client to a server.
    pub fn connect(&self, server: &str) -> TcpStream {
        let server = SocketAddr::new(server.parse().unwrap(), 53);
        let stream = self
            .client
            .run(|| TcpStream::connect(server))
            .unwrap()
            .unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(8)))
            .unwrap();
        stream
    }

    /// A UDP socket of the client.
    pub fn datagrams(&self, address: &str) -> UdpSocket {
        let local = SocketAddr::new(address.parse().unwrap(), 0);
        let socket = self.client.run(|| UdpSocket::bind(local)).unwrap().unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(3)))
            .unwrap();
        socket
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(shard) = self.shard.take() {
            let _ = shard.control.blocking_send(ControlMsg::Stop);
            let _ = shard.end.join();
        }
    }
}

const PORT: u16 = 10053;

/// One endpoint at the client's addresses that may ask anything anywhere and learns from it all.
pub fn snapshot(revision: u64, id: EndpointId) -> Snapshot {
    let every_name = NameSelector::pattern("**").unwrap();
    let policy = EndpointPolicy {
        selectors: [(SelectorId::new(1), every_name)].into_iter().collect(),
        dns_rules: vec![DnsRule {
            kind: DnsRuleKind::Port,
            server: Peer::Any,
            proto: None,
            ports: PortPrefix::one(53),
            names: DnsNames::All,
            origin: None,
        }],
        ..EndpointPolicy::default()
    };
    Snapshot {
        revision,
        endpoints: vec![EndpointSnapshot {
            id,
            addresses: vec![CLIENT4.parse().unwrap(), CLIENT6.parse().unwrap()],
            policy: Arc::new(policy.sorted()),
            next: None,
            enforced: None,
            audit: false,
        }],
        trusted: [RESOLVER4, RESOLVER6, OWN4]
            .map(|address| SocketAddr::new(address.parse().unwrap(), 53))
            .into(),
        ..Snapshot::default()
    }
}

fn connect(client: &Netns, gateway: &Netns, host: &Netns, resolver: &Netns) {
    // IPv6 neighbours of a spoofed source are solicited from the link-local address. Without
    // duplicate address detection it is there as soon as the link has a carrier.
    for netns in [client, gateway, host, resolver] {
        netns
            .sysctl("net.ipv6.conf.default.accept_dad", "0")
            .unwrap();
    }
    wire(
        End {
            netns: client,
            name: "eth0",
            addresses: &["10.77.0.2/24", "fd77::2/64", "10.77.0.3/24"],
        },
        End {
            netns: gateway,
            name: "pod",
            addresses: &["10.77.0.1/24", "fd77::1/64"],
        },
    )
    .unwrap();
    wire(
        End {
            netns: host,
            name: "out",
            addresses: &["10.78.0.1/24", "fd78::1/64"],
        },
        End {
            netns: resolver,
            name: "eth0",
            addresses: &["10.78.0.53/24", "fd78::53/64"],
        },
    )
    .unwrap();
    for address in ["10.78.0.54/24", "10.78.0.55/24"] {
        add_address(resolver, "eth0", address).unwrap();
    }
    for family in ["-4", "-6"] {
        let gate = if family == "-4" {
            "10.77.0.1"
        } else {
            "fd77::1"
        };
        client
            .ip(&[family, "route", "add", "default", "via", gate])
            .unwrap();
        gateway
            .ip(&[
                family,
                "rule",
                "add",
                "pref",
                "9",
                "fwmark",
                "0x200/0xf00",
                "lookup",
                "2004",
            ])
            .unwrap();
        gateway
            .ip(&[
                family, "route", "add", "local", "default", "dev", "lo", "table", "2004",
            ])
            .unwrap();
    }
    for (netns, link) in [
        (client, "eth0"),
        (gateway, "pod"),
        (host, "out"),
        (resolver, "eth0"),
    ] {
        until_true(Duration::from_secs(5), "a link-local address", || {
            let shown = netns.ip(&["-6", "address", "show", "dev", link]);
            shown.is_ok_and(|shown| shown.contains("fe80::") && !shown.contains("tentative"))
        })
        .unwrap();
    }
    // What the kernel program does on a real endpoint: steer port 53, accept only our own replies.
    gateway
        .nft(&format!(
            "table inet steer {{
               chain pre {{ type filter hook prerouting priority mangle;
                 iif pod meta nfproto ipv4 meta l4proto {{ tcp, udp }} th dport 53 tproxy ip to 127.0.0.1:{PORT} meta mark set 0x200
                 iif pod meta nfproto ipv6 meta l4proto {{ tcp, udp }} th dport 53 tproxy ip6 to [::1]:{PORT} meta mark set 0x200
               }}
               chain out {{ type filter hook output priority filter; oif pod meta l4proto {{ tcp, udp }} meta mark and 0xf00 != 0xa00 drop; }}
             }}"
        ))
        .unwrap();
}

fn start_unbound(resolver: &Netns, files: &TempDir) -> Process {
    let directory = files.path().display();
    let strings = |count: usize| {
        (0..count)
            .map(|n| format!("\"{}{n:04}\"", "x".repeat(196)))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let hosts: String = (0..3000)
        .map(|n| {
            format!(
                "n{n}.example.test. 300 IN A 203.0.{}.{}\n",
                n / 250,
                n % 250 + 1
            )
        })
        .collect();
    let zone = format!(
        ". 3600 IN SOA ns.test. root.test. 1 3600 600 86400 5\n. 3600 IN NS ns.test.\n\
         a.example.test. 300 IN A 203.0.113.1\na.example.test. 300 IN AAAA 2001:db8:113::1\n\
         big.example.test. 300 IN TXT {}\nhuge.example.test. 300 IN TXT {}\n{hosts}",
        strings(19),
        strings(100),
    );
    std::fs::write(files.path().join("root.zone"), zone).unwrap();
    let config = format!(
        r#"server:
  directory: "{directory}"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  num-threads: 1
  interface: {RESOLVER4}
  interface: {RESOLVER6}
  access-control: 0.0.0.0/0 allow
  access-control: ::/0 allow
  module-config: "iterator"
  edns-buffer-size: 4096
  max-udp-size: 4096
  incoming-num-tcp: 400
  so-rcvbuf: 4m
  so-sndbuf: 4m
  local-zone: "test." nodefault
remote-control:
  control-enable: no
auth-zone:
  name: "."
  zonefile: "{directory}/root.zone"
  for-downstream: yes
  for-upstream: no
"#
    );
    let file = files.path().join("unbound.conf");
    std::fs::write(&file, config).unwrap();
    let program = tools::find("unbound").unwrap();
    let mut command = resolver.command(program);
    Process::spawn("unbound", command.args(["-d", "-p", "-c"]).arg(file)).unwrap()
}
