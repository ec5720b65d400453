//! CONFIG: what holds for every endpoint alike.
//!
//! In:  settings of the loader.
//! Out: [`Config`], the one entry of the CONFIG array.
//! Not here: anything about one endpoint (`endpoint`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::ABI_VERSION;

/// The one record of CONFIG.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Config {
    abi_version: u32,
    /// Bumped whenever IPCACHE changes: flows judged before are judged again.
    ipcache_epoch: u32,
    mark_mask: u32,
    to_proxy_mark: u32,
    from_proxy_mark: u32,
    listener_port: u16,
    listener_shards: u16,
    events_per_second: u32,
    event_burst: u32,
}

const _: () = assert!(size_of::<Config>() == 32);

/// Which part of the packet mark is ours, and what it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marks {
    /// Bits of the mark that belong to us.
    pub mask: u32,
    /// On its way to the proxy.
    pub to_proxy: u32,
    /// Sent by the proxy; also the mark of the proxy's sockets.
    pub from_proxy: u32,
}

impl Default for Marks {
    fn default() -> Self {
        Self {
            mask: 0xf00,
            to_proxy: 0x200,
            from_proxy: 0xa00,
        }
    }
}

impl Default for Config {
    /// Marks 0x200/0xa00 of 0xf00, no listener, a thousand events a second and endpoint.
    fn default() -> Self {
        Self::new(Marks::default(), 0, 1)
    }
}

impl Config {
    /// A configuration with the default event rate. `listener_shards` is at least one.
    pub const fn new(marks: Marks, listener_port: u16, listener_shards: u16) -> Self {
        Self {
            abi_version: ABI_VERSION,
            ipcache_epoch: 0,
            mark_mask: marks.mask,
            to_proxy_mark: marks.to_proxy & marks.mask,
            from_proxy_mark: marks.from_proxy & marks.mask,
            listener_port,
            listener_shards: if listener_shards == 0 {
                1
            } else {
                listener_shards
            },
            events_per_second: 1000,
            event_burst: 2000,
        }
    }

    /// The same with this event budget per endpoint.
    #[must_use]
    pub const fn with_events(mut self, per_second: u32, burst: u32) -> Self {
        self.events_per_second = per_second;
        self.event_burst = burst;
        self
    }

    /// The same after a change of IPCACHE.
    #[must_use]
    pub const fn with_ipcache_epoch(mut self, epoch: u32) -> Self {
        self.ipcache_epoch = epoch;
        self
    }

    /// Whether this record means what this code takes it to mean.
    #[inline(always)]
    pub const fn is_ours(&self) -> bool {
        self.abi_version == ABI_VERSION
    }

    /// How often IPCACHE has changed.
    #[inline(always)]
    pub const fn ipcache_epoch(&self) -> u32 {
        self.ipcache_epoch
    }

    /// Whether the mark says that the proxy sent the packet (or owns the socket).
    #[inline(always)]
    pub const fn is_from_proxy(&self, mark: u32) -> bool {
        self.from_proxy_mark != 0 && mark & self.mark_mask == self.from_proxy_mark
    }

    /// The mark of a packet that is to be delivered to the proxy, foreign bits kept.
    #[inline(always)]
    pub const fn steered(&self, mark: u32) -> u32 {
        (mark & !self.mark_mask) | self.to_proxy_mark
    }

    /// The port of the proxy's listener for this endpoint: every shard has its own, because
    /// `bpf_sk_assign` refuses SO_REUSEPORT groups before Linux 6.6.
    #[inline(always)]
    pub const fn listener_port(&self, endpoint: u32) -> u16 {
        let shards = if self.listener_shards == 0 {
            1
        } else {
            self.listener_shards as u32
        };
        self.listener_port.wrapping_add((endpoint % shards) as u16)
    }

    /// Events a second and endpoint.
    #[inline(always)]
    pub const fn events_per_second(&self) -> u32 {
        self.events_per_second
    }

    /// Events in a burst.
    #[inline(always)]
    pub const fn event_burst(&self) -> u32 {
        self.event_burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_keep_foreign_bits() {
        let config = Config::default();
        assert_eq!(config.steered(0x1234_0f01), 0x1234_0201);
        assert!(config.is_from_proxy(0x0001_0a00));
        assert!(!config.is_from_proxy(0x0001_0200) && !config.is_from_proxy(0));
    }

    #[test]
    fn every_endpoint_has_a_listener_among_the_shards() {
        let config = Config::new(Marks::default(), 40_000, 3);
        assert_eq!(
            [0, 1, 2, 3].map(|id| config.listener_port(id)),
            [40_000, 40_001, 40_002, 40_000]
        );
        assert_eq!(Config::new(Marks::default(), 9, 0).listener_port(77), 9);
    }
}
