//! The interfaces of this network namespace, as far as enforcing needs to know them.
//!
//! In:  rtnetlink dumps; notices that something changed.
//! Out: [`Links`], a picture of this moment and what went since the last one; when to take the next.
//! Not here: what is done about an interface (`engine`).
//!
//! Two pictures do not tell everything: an interface that went and came back in between, by the
//! same name and number, looks the same in both. The notices tell. Where the kernel had no room for
//! a notice, every interface may be such a one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream::BoxStream};
use netlink_sys::AsyncSocket;
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use rtnetlink::{
    Handle, MulticastGroup, new_connection, new_multicast_connection,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::AddressAttribute,
        link::{InfoBridge, InfoData, LinkAttribute, LinkInfo, LinkMessage},
    },
};

use tokio::time::timeout;

use super::error::DaemonError;

/// Bytes of notices that may wait: what thousands of changes at once amount to.
const WAITING: usize = 16 << 20;
/// How long the kernel may take to list everything.
const PICTURE: Duration = Duration::from_secs(10);

/// One interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mac: Option<[u8; 6]>,
    /// `veth`, `bridge`, …; none for hardware.
    pub(crate) kind: Option<String>,
    pub(crate) vlan_filtering: bool,
    pub(crate) master: Option<u32>,
    peer: Option<u32>,
    peer_netns: Option<i32>,
}

/// Every interface, and the addresses of the node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Links {
    by_index: BTreeMap<u32, Link>,
    /// Numbers of interfaces that went since the picture before. One that is in this picture all
    /// the same is another one.
    pub(crate) gone: BTreeSet<u32>,
    /// Somebody changed since then what runs at the hooks of some interface.
    pub(crate) filters: bool,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Links {
    pub(crate) fn by_name(&self, name: &str) -> Option<&Link> {
        self.by_index.values().find(|link| link.name == name)
    }

    /// The interface this one is a port or slave of.
    pub(crate) fn master(&self, link: &Link) -> Option<&Link> {
        self.by_index.get(&link.master?)
    }
}

/// Asks the kernel about links, and hears of changes.
pub(crate) struct Watch {
    /// For every other request: a socket that is full of notices has no room for its answer.
    pub(crate) handle: Handle,
    /// Pictures come by the socket of the notices: what is in one has been noticed before.
    pictures: Handle,
    notices: BoxStream<'static, Notice>,
    gone: BTreeSet<u32>,
    /// In the last picture.
    seen: BTreeSet<u32>,
    lost: bool,
    filters: bool,
    /// Something changed while the last picture was taken.
    again: bool,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("gone", &self.gone)
            .field("again", &self.again)
            .finish_non_exhaustive()
    }
}

/// What changed.
#[derive(Clone, Copy, Debug)]
enum Notice {
    /// The link by this number went.
    Gone(u32),
    /// Filters of an interface, or what holds them.
    Filters,
    /// There were more than the socket had room for.
    Lost,
    /// Something else about links and addresses.
    Other,
}

impl Watch {
    /// Starts on the current runtime, in the network namespace of the calling thread.
    pub(crate) fn start() -> Result<Self, DaemonError> {
        let watcher = || DaemonError::system("the link watcher");
        let (mut connection, pictures, messages) = new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Tc,
        ])
        .map_err(watcher())?;
        let socket = connection.socket_mut().socket_mut();
        setsockopt(&socket, RcvBufForce, &WAITING).map_err(|error| watcher()(error.into()))?;
        tokio::spawn(connection);
        let (connection, handle, _) = new_connection().map_err(watcher())?;
        tokio::spawn(connection);
        Ok(Self {
            handle,
            pictures,
            notices: messages.map(|(message, _)| notice(&message)).boxed(),
            gone: BTreeSet::new(),
            seen: BTreeSet::new(),
            lost: false,
            filters: false,
            again: false,
        })
    }

    /// Returns when something changed since the last picture. A call that is given up loses
    /// nothing.
    pub(crate) async fn changed(&mut self) {
        if std::mem::take(&mut self.again) {
            return;
        }
        match self.notices.next().await {
            Some(notice) => self.note(notice),
            // The kernel closed the socket; the caller's timer goes on.
            None => std::future::pending().await,
        }
    }

    /// Takes in every notice that waits; true when there was one.
    fn drain(&mut self) -> bool {
        let mut any = false;
        while let Some(Some(notice)) = self.notices.next().now_or_never() {
            self.note(notice);
            any = true;
        }
        any
    }

    fn note(&mut self, notice: Notice) {
        match notice {
            Notice::Gone(index) => drop(self.gone.insert(index)),
            Notice::Filters => self.filters = true,
            Notice::Lost => self.lost = true,
            Notice::Other => {}
        }
    }

    /// Every link and address at this moment, and what went before it.
    pub(crate) async fn links(&mut self) -> Result<Links, DaemonError> {
        self.drain();
        let links = timeout(PICTURE, self.dump())
            .await
            .map_err(|late| DaemonError::system("list links")(late.into()))??;
        // What changed while the picture was taken may be in it or not.
        self.again |= self.drain();
        if std::mem::take(&mut self.lost) {
            tracing::warn!("too many changes of interfaces at once: every endpoint begins anew");
            self.gone.append(&mut self.seen);
            self.filters = true;
        }
        self.seen = links.by_index.keys().copied().collect();
        Ok(Links {
            gone: std::mem::take(&mut self.gone),
            filters: std::mem::take(&mut self.filters),
            ..links
        })
    }

    async fn dump(&self) -> Result<Links, DaemonError> {
        let messages: Vec<_> = self
            .pictures
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(DaemonError::netlink("list links"))?;
        let addresses: Vec<_> = self
            .pictures
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(DaemonError::netlink("list addresses"))?;
        let mut all: Vec<IpAddr> = addresses
            .into_iter()
            .flat_map(|message| message.attributes)
            .filter_map(|attribute| match attribute {
                // The address itself; on a point-to-point link `Address` is the other side.
                AddressAttribute::Local(address) => Some(address),
                AddressAttribute::Address(address) if address.is_ipv6() => Some(address),
                _ => None,
            })
            .collect();
        all.sort_unstable();
        all.dedup();
        Ok(Links {
            by_index: messages
                .into_iter()
                .map(link)
                .map(|link| (link.index, link))
                .collect(),
            gone: BTreeSet::new(),
            filters: false,
            addresses: all,
        })
    }

    /// The hardware address of the other end of a veth pair, in whatever namespace it is.
    pub(crate) async fn peer_mac(&self, link: &Link) -> Option<[u8; 6]> {
        let mut request = self.handle.link().get().match_index(link.peer?);
        if let Some(netns) = link.peer_netns {
            request
                .message_mut()
                .attributes
                .push(LinkAttribute::IfNetnsId(netns));
        }
        let answers: Vec<LinkMessage> = request.execute().try_collect().await.ok()?;
        self::link(answers.into_iter().next()?).mac
    }
}

/// What a message says. A port that leaves its bridge is said to be gone too, by the bridge.
fn notice(message: &NetlinkMessage<RouteNetlinkMessage>) -> Notice {
    use RouteNetlinkMessage as M;
    let message = match &message.payload {
        NetlinkPayload::InnerMessage(message) => message,
        NetlinkPayload::Overrun(_) => return Notice::Lost,
        _ => return Notice::Other,
    };
    match message {
        M::DelLink(link) if link.header.interface_family == AddressFamily::Unspec => {
            Notice::Gone(link.header.index)
        }
        M::NewTrafficFilter(_)
        | M::DelTrafficFilter(_)
        | M::NewQueueDiscipline(_)
        | M::DelQueueDiscipline(_) => Notice::Filters,
        _ => Notice::Other,
    }
}

fn link(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        kind: None,
        vlan_filtering: false,
        master: None,
        peer: None,
        peer_netns: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(mac) => link.mac = mac.try_into().ok(),
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::Link(index) => link.peer = Some(index),
            LinkAttribute::LinkNetNsId(id) => link.peer_netns = Some(id),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
                        LinkInfo::Data(InfoData::Bridge(settings)) => {
                            link.vlan_filtering = settings
                                .iter()
                                .any(|s| matches!(s, InfoBridge::VlanFiltering(true)));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link
}

#[cfg(test)]
impl Links {
    /// Links as a test needs them: index, name, kind, master.
    pub(crate) fn of(all: &[(u32, &str, &str, Option<u32>)]) -> Self {
        Self {
            by_index: all
                .iter()
                .map(|(index, name, kind, master)| {
                    let link = Link {
                        index: *index,
                        name: (*name).to_owned(),
                        mac: Some([2, 0, 0, 0, 0, 1]),
                        kind: Some((*kind).to_owned()),
                        vlan_filtering: *kind == "bridge" && name.starts_with("vlan"),
                        master: *master,
                        peer: None,
                        peer_netns: None,
                    };
                    (*index, link)
                })
                .collect(),
            gone: BTreeSet::new(),
            filters: false,
            addresses: Vec::new(),
        }
    }
}
