//! The interfaces of this network namespace, as far as enforcing needs to know them.
//!
//! In:  rtnetlink dumps; notices that something changed.
//! Out: [`Links`], a picture of this moment; a channel that says when to take the next one.
//! Not here: what is done about an interface (`engine`).

use std::{collections::BTreeMap, net::IpAddr};

use futures_util::TryStreamExt;
use rtnetlink::{
    Handle, MulticastGroup, new_multicast_connection,
    packet_route::{
        address::AddressAttribute,
        link::{InfoBridge, InfoData, LinkAttribute, LinkInfo, LinkMessage},
    },
};
use tokio::sync::mpsc;

use super::error::DaemonError;

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
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) handle: Handle,
    changed: mpsc::Receiver<()>,
}

impl Watch {
    /// Starts on the current runtime, in the network namespace of the calling thread.
    pub(crate) fn start() -> Result<Self, DaemonError> {
        let (connection, handle, mut messages) = new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ])
        .map_err(DaemonError::system("the link watcher"))?;
        tokio::spawn(connection);
        // One waiting notice is enough: it says "look again", not what changed.
        let (notice, changed) = mpsc::channel(1);
        tokio::spawn(async move {
            use futures_util::StreamExt;
            while messages.next().await.is_some() {
                if matches!(
                    notice.try_send(()),
                    Err(mpsc::error::TrySendError::Closed(()))
                ) {
                    return;
                }
            }
        });
        Ok(Self { handle, changed })
    }

    /// Returns when something changed since the last call.
    pub(crate) async fn changed(&mut self) {
        if self.changed.recv().await.is_none() {
            // The kernel closed the socket; the caller's timer goes on.
            std::future::pending::<()>().await;
        }
    }

    /// Every link and address at this moment.
    pub(crate) async fn links(&self) -> Result<Links, DaemonError> {
        let messages: Vec<_> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(DaemonError::netlink("list links"))?;
        let addresses: Vec<_> = self
            .handle
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
            addresses: Vec::new(),
        }
    }
}
