//! Routes marked DNS packets to the proxy's sockets.
//!
//! In:  the network namespace of the calling thread, the mark that the kernel programs set.
//! Out: `fwmark → table → local` for both families, and no reverse-path filter in the way.
//! Not here: setting the mark (`fqdn-ebpf`), the sockets (`dnsproxy`).
//!
//! What is needed and what is not was measured: one rule and one route a family, no sysctl; but
//! `src_valid_mark=1` makes the reverse look-up see the mark and must be off, or the rule must
//! name the interface. This namespace is our own, so it is switched off.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use rtnetlink::{
    Handle, RouteMessageBuilder, new_connection,
    packet_route::{
        link::LinkAttribute,
        route::{RouteScope, RouteType},
        rule::{RuleAction, RuleAttribute},
    },
};

/// How a marked packet finds the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Steering {
    /// The mark of packets on their way to the proxy.
    pub(crate) mark: u32,
    /// The bits of the mark that are ours.
    pub(crate) mask: u32,
    /// The routing table with the one local route.
    pub(crate) table: u32,
    /// Priority of the rule; before the local table's successor at 32766.
    pub(crate) priority: u32,
}

impl Default for Steering {
    /// The numbers of Cilium (`pkg/datapath/linux/linux_defaults`), so that people recognise them.
    fn default() -> Self {
        Self {
            mark: 0x200,
            mask: 0xf00,
            table: 2004,
            priority: 9,
        }
    }
}

/// Why DNS cannot be steered.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// A socket or a runtime could not be made.
    #[error("cannot open a netlink socket")]
    Socket(#[source] io::Error),
    /// The kernel refused a rule or route.
    #[error("cannot add the {what} that steers DNS to the proxy")]
    Netlink {
        /// What was to be added.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: rtnetlink::Error,
    },
}

impl Steering {
    /// Sets up both families in the namespace of the calling thread; only one where IPv6 is off.
    ///
    /// # Errors
    /// When the kernel refuses a rule or a route.
    pub(crate) fn install(&self) -> Result<(), SteeringError> {
        for sysctl in ["src_valid_mark", "rp_filter"] {
            // Absent in a kernel without it, and then not in the way.
            if fs::write(format!("/proc/sys/net/ipv4/conf/all/{sysctl}"), "0").is_err() {
                tracing::debug!(sysctl, "not settable");
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(SteeringError::Socket)?;
        runtime.block_on(async {
            let (connection, handle, _) = new_connection().map_err(SteeringError::Socket)?;
            let driver = tokio::spawn(connection);
            let result = self.install_with(&handle).await;
            driver.abort();
            result
        })
    }

    async fn install_with(&self, handle: &Handle) -> Result<(), SteeringError> {
        let loopback = loopback_index(handle).await?;
        self.rule(handle.rule().add().v4()).await?;
        self.route(handle, IpAddr::V4(Ipv4Addr::UNSPECIFIED), loopback)
            .await?;
        if speaks_ipv6() {
            self.rule(handle.rule().add().v6()).await?;
            self.route(handle, IpAddr::V6(Ipv6Addr::UNSPECIFIED), loopback)
                .await?;
        }
        Ok(())
    }

    /// Adds one rule; the caller chose the family and, where needed, the interface.
    pub(crate) async fn rule<T>(
        &self,
        request: rtnetlink::RuleAddRequest<T>,
    ) -> Result<(), SteeringError> {
        let mut request = request
            .priority(self.priority)
            .fw_mark(self.mark)
            .table_id(self.table)
            .action(RuleAction::ToTable);
        request
            .message_mut()
            .attributes
            .push(RuleAttribute::FwMask(self.mask));
        request
            .execute()
            .await
            .map_err(|source| SteeringError::Netlink {
                what: "rule",
                source,
            })
    }

    /// Adds the local route of one family.
    pub(crate) async fn route(
        &self,
        handle: &Handle,
        any: IpAddr,
        loopback: u32,
    ) -> Result<(), SteeringError> {
        let message = match any {
            IpAddr::V4(any) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(any, 0)
                .output_interface(loopback)
                .table_id(self.table)
                .kind(RouteType::Local)
                .scope(RouteScope::Host)
                .build(),
            IpAddr::V6(any) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(any, 0)
                .output_interface(loopback)
                .table_id(self.table)
                .kind(RouteType::Local)
                .scope(RouteScope::Host)
                .build(),
        };
        handle
            .route()
            .add(message)
            .execute()
            .await
            .map_err(|source| SteeringError::Netlink {
                what: "route",
                source,
            })
    }
}

/// Whether this namespace has IPv6 at all, and it is not switched off.
pub(crate) fn speaks_ipv6() -> bool {
    fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6")
        .is_ok_and(|value| value.trim() == "0")
}

pub(crate) async fn loopback_index(handle: &Handle) -> Result<u32, SteeringError> {
    use futures_util::TryStreamExt;
    let refused = |source| SteeringError::Netlink {
        what: "route over `lo`",
        source,
    };
    let links: Vec<_> = handle
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(refused)?;
    Ok(links
        .into_iter()
        .find(|link| {
            link.attributes
                .iter()
                .any(|a| matches!(a, LinkAttribute::IfName(name) if name == "lo"))
        })
        .map_or(1, |link| link.header.index))
}
