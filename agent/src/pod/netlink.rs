//! rtnetlink from synchronous code, inside a chosen namespace.
//!
//! In:  a namespace and an async closure over a netlink handle.
//! Out: its result, with the kernel's refusals turned into [`PodError::Link`].
//! Not here: what is set up (`links`, `host`).

use std::{io, net::IpAddr};

use futures_util::TryStreamExt;
use nix::errno::Errno;
use rtnetlink::{
    Handle, LinkUnspec, RouteMessageBuilder, new_connection,
    packet_route::{
        address::{AddressAttribute, AddressFlags},
        link::LinkAttribute,
    },
};

use super::{PodError, netns::NetNs};

/// Runs `work` with a netlink socket of `netns`.
pub(crate) fn with_netlink<T: Send>(
    netns: &NetNs,
    work: impl AsyncFnOnce(Netlink) -> Result<T, PodError> + Send,
) -> Result<T, PodError> {
    netns.run(move || {
        let started = |source| PodError::Start {
            what: "the netlink runtime",
            source,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(started)?;
        runtime.block_on(async {
            let (connection, handle, _) = new_connection().map_err(started)?;
            let driver = tokio::spawn(connection);
            let result = work(Netlink { handle }).await;
            driver.abort();
            result
        })
    })?
}

/// What the pod needs of rtnetlink, one method a noun.
#[derive(Debug, Clone)]
pub(crate) struct Netlink {
    pub(crate) handle: Handle,
}

/// A link as far as we care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u32,
}

impl Netlink {
    pub(crate) async fn links(&self) -> Result<Vec<Link>, PodError> {
        let messages: Vec<_> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|error| refused("list links", &error))?;
        Ok(messages
            .into_iter()
            .map(|message| {
                let mut link = Link {
                    index: message.header.index,
                    name: String::new(),
                    mac: [0; 6],
                    mtu: 1500,
                };
                for attribute in message.attributes {
                    match attribute {
                        LinkAttribute::IfName(name) => link.name = name,
                        LinkAttribute::Address(mac) => {
                            link.mac = mac.try_into().unwrap_or_default()
                        }
                        LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                        _ => {}
                    }
                }
                link
            })
            .collect())
    }

    pub(crate) async fn link(&self, name: &str) -> Result<Option<Link>, PodError> {
        Ok(self
            .links()
            .await?
            .into_iter()
            .find(|link| link.name == name))
    }

    pub(crate) async fn existing_link(&self, name: &str) -> Result<Link, PodError> {
        self.link(name).await?.ok_or_else(|| PodError::Link {
            action: format!("find link `{name}`"),
            reason: "it is gone".to_owned(),
        })
    }

    pub(crate) async fn up(&self, index: u32) -> Result<(), PodError> {
        let change = LinkUnspec::new_with_index(index).up().build();
        let sent = self.handle.link().set(change).execute().await;
        sent.map_err(|error| refused("bring a link up", &error))
    }

    /// Adds an address that is usable at once: a pair of namespaces of ours needs no duplicate detection.
    pub(crate) async fn address(
        &self,
        index: u32,
        address: IpAddr,
        length: u8,
    ) -> Result<(), PodError> {
        let mut request = self.handle.address().add(index, address, length);
        if address.is_ipv6() {
            request
                .message_mut()
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let sent = request.execute().await;
        sent.map_err(|error| refused(&format!("add address {address}/{length}"), &error))
    }

    pub(crate) async fn route(
        &self,
        index: u32,
        to: (IpAddr, u8),
        via: IpAddr,
    ) -> Result<(), PodError> {
        let message = match (to.0, via) {
            (IpAddr::V4(to4), IpAddr::V4(via4)) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix(to4, to.1)
                .gateway(via4)
                .output_interface(index)
                .build(),
            (IpAddr::V6(to6), IpAddr::V6(via6)) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .destination_prefix(to6, to.1)
                .gateway(via6)
                .output_interface(index)
                .build(),
            _ => {
                return Err(PodError::Link {
                    action: format!("route {}", to.0),
                    reason: "address families differ".to_owned(),
                });
            }
        };
        let sent = self.handle.route().add(message).execute().await;
        sent.map_err(|error| refused(&format!("route {}/{} via {via}", to.0, to.1), &error))
    }

    /// A permanent neighbour entry: the first packet then waits for nobody.
    pub(crate) async fn neighbour(
        &self,
        index: u32,
        address: IpAddr,
        mac: [u8; 6],
    ) -> Result<(), PodError> {
        let request = self
            .handle
            .neighbours()
            .add(index, address)
            .link_layer_address(&mac);
        let sent = request.replace().execute().await;
        sent.map_err(|error| refused(&format!("add neighbour {address}"), &error))
    }

    /// Deletes the link; a link that is gone already is fine.
    pub(crate) async fn delete(&self, index: u32) -> Result<(), PodError> {
        match self.handle.link().del(index).execute().await {
            Ok(()) => Ok(()),
            Err(error) if errno(&error) == Some(Errno::ENODEV as i32) => Ok(()),
            Err(error) => Err(refused("delete the pod's link", &error)),
        }
    }
}

/// The kernel's errno behind a netlink error, positive.
pub(crate) fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| code.get().abs()),
        _ => None,
    }
}

pub(crate) fn refused(action: &str, error: &rtnetlink::Error) -> PodError {
    let reason = errno(error).map_or_else(
        || error.to_string(),
        |errno| io::Error::from_raw_os_error(errno).to_string(),
    );
    PodError::Link {
        action: action.to_owned(),
        reason,
    }
}
