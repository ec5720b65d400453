//! A namespace that is thrown away after one question, to see whether DNS gets to the proxy and back.
//!
//! In:  the namespace of the calling thread.
//! Out: [`Trial`]: a routed veth pair with somebody behind it who can ask.
//! Not here: attaching programs, the proxy that answers (`daemon`).
//!
//! The host's side gets routes and no address: nothing of this makes other people's packets local.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use super::{
    PodError,
    netlink::{Link, Netlink, refused, with_netlink},
    netns::NetNs,
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

/// The host's side.
const NAME: &str = "namegate-trial";
const INSIDE: &str = "eth0";
/// Of the block for benchmarks (RFC 2544), which nobody routes.
const V4: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 254);
const GATEWAY4: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 253);
/// Of the block for discarding (RFC 6666).
const V6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0x6e67, 2);
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0x6e67, 1);
/// Whom it asks: nobody is there, so only the proxy can answer.
const SERVERS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 19, 255, 250)),
    IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0x6e67, 0x53)),
];
/// How often a question is sent, and how long each waits.
const TRIES: u32 = 3;
const PATIENCE: Duration = Duration::from_millis(700);

/// The namespace, and the link to it.
#[derive(Debug)]
pub(crate) struct Trial {
    host: NetNs,
    inside: NetNs,
    pub(crate) ifindex: u32,
    pub(crate) mac: [u8; 6],
    ipv6: bool,
}

impl Trial {
    /// The interface of the host that queries come in by.
    pub(crate) const INTERFACE: &str = NAME;

    /// Makes everything; what was left of another trial goes first.
    pub(crate) fn create() -> Result<Self, PodError> {
        let host = NetNs::current()?;
        let inside = NetNs::create()?;
        let peer_ns = inside.clone();
        let link = with_netlink(&host, async |netlink| {
            if let Some(old) = netlink.link(NAME).await? {
                netlink.delete(old.index).await?;
            }
            let peer = LinkMessageBuilder::<LinkUnspec>::new()
                .name(INSIDE.to_owned())
                .setns_by_fd(peer_ns.raw_fd())
                .build();
            let pair = LinkMessageBuilder::<LinkVeth>::new(NAME, "")
                .set_info_data(rtnetlink::packet_route::link::InfoData::Veth(
                    rtnetlink::packet_route::link::InfoVeth::Peer(peer),
                ))
                .build();
            let made = netlink.handle.link().add(pair).execute().await;
            made.map_err(|error| refused("create a veth pair", &error))?;
            netlink.existing_link(NAME).await
        })?;
        let mut trial = Self {
            host,
            inside,
            ifindex: link.index,
            mac: [0; 6],
            ipv6: false,
        };
        trial.connect(&link)?;
        Ok(trial)
    }

    fn connect(&mut self, link: &Link) -> Result<(), PodError> {
        // Without an address of its own the host's side changes nothing about who the node is.
        let conf = format!("/proc/sys/net/ipv6/conf/{NAME}");
        let quiet = self
            .host
            .run(|| fs::write(format!("{conf}/addr_gen_mode"), "1"))?;
        let enabled = fs::read_to_string(format!("{conf}/disable_ipv6"));
        let ipv6 = quiet.is_ok() && enabled.is_ok_and(|value| value.trim() == "0");
        let own = with_netlink(&self.inside, async |netlink| {
            let own = netlink.existing_link(INSIDE).await?;
            netlink.up(own.index).await?;
            settle(&netlink, own.index, V4.into(), GATEWAY4.into(), link.mac).await?;
            if ipv6 {
                settle(&netlink, own.index, V6.into(), GATEWAY6.into(), link.mac).await?;
            }
            Ok(own)
        })?;
        with_netlink(&self.host, async |netlink| {
            netlink.up(link.index).await?;
            reach(&netlink, link.index, V4.into(), own.mac).await?;
            if ipv6 {
                reach(&netlink, link.index, V6.into(), own.mac).await?;
            }
            Ok(())
        })?;
        self.mac = own.mac;
        self.ipv6 = ipv6;
        Ok(())
    }

    /// What the one behind it may use as source.
    pub(crate) fn addresses(&self) -> (Ipv4Addr, Option<Ipv6Addr>) {
        (V4, self.ipv6.then_some(V6))
    }

    /// Asks, in every family there is. The proxy that hears it has an answer ready.
    ///
    /// # Errors
    /// Which family got no answer.
    pub(crate) fn ask(&self) -> Result<(), String> {
        let asked = self.inside.run(|| {
            SERVERS
                .iter()
                .filter(|server| self.ipv6 || server.is_ipv4())
                .try_for_each(|server| {
                    ask(*server).map_err(|error| {
                        let family = if server.is_ipv4() { "IPv4" } else { "IPv6" };
                        format!("a steered query over {family} got no answer: {error}")
                    })
                })
        });
        asked.map_err(|error| error.to_string())?
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let index = self.ifindex;
        let gone = with_netlink(&self.host, async |netlink| netlink.delete(index).await);
        if let Err(error) = gone {
            tracing::warn!(%error, "`{NAME}` stays");
        }
    }
}

/// The side of who asks: an address, and the host as its way to everybody.
async fn settle(
    netlink: &Netlink,
    index: u32,
    address: IpAddr,
    gateway: IpAddr,
    mac: [u8; 6],
) -> Result<(), PodError> {
    let (length, any): (u8, IpAddr) = if address.is_ipv4() {
        (30, Ipv4Addr::UNSPECIFIED.into())
    } else {
        (126, Ipv6Addr::UNSPECIFIED.into())
    };
    netlink.address(index, address, length).await?;
    netlink.neighbour(index, gateway, mac).await?;
    netlink.route(index, (any, 0), gateway).await
}

/// The host's side: a route to who asks, by an address that needs no discovery.
async fn reach(
    netlink: &Netlink,
    index: u32,
    address: IpAddr,
    mac: [u8; 6],
) -> Result<(), PodError> {
    let route = match address {
        IpAddr::V4(address) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .output_interface(index)
            .scope(rtnetlink::packet_route::route::RouteScope::Link)
            .build(),
        IpAddr::V6(address) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(address, 128)
            .output_interface(index)
            .build(),
    };
    let added = netlink.handle.route().add(route).execute().await;
    added.map_err(|error| refused("route to the trial", &error))?;
    netlink.neighbour(index, address, mac).await
}

/// One question, asked until somebody answers.
fn ask(server: IpAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(SocketAddr::new(
        if server.is_ipv4() {
            V4.into()
        } else {
            V6.into()
        },
        0,
    ))?;
    socket.connect(SocketAddr::new(server, 53))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut answer = [0; 512];
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for _ in 0..TRIES {
        socket.send(QUESTION)?;
        match socket.recv(&mut answer) {
            // The same number, and the bit that says it is a response.
            Ok(_)
                if answer.starts_with(&[0x6e, 0x67])
                    && answer.get(2).is_some_and(|flags| flags & 0x80 != 0) =>
            {
                return Ok(());
            }
            Ok(_) => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// `trial.namegate.invalid. A`, recursion desired (RFC 1035 §4.1).
const QUESTION: &[u8] = b"\x6e\x67\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\
    \x05trial\x08namegate\x07invalid\x00\x00\x01\x00\x01";
