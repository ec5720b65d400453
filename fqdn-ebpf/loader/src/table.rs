//! One BPF map with its name and record types.
//!
//! In:  records of `fqdn-ebpf-common`.
//! Out: [`Table`], [`Trie`]: what can be done to a map, with errors that name it.
//! Not here: which records mean what.

use std::marker::PhantomData;

use aya::maps::{HashMap, LpmTrie, Map, MapData, lpm_trie::Key};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    LoadError, MapError,
    error::{chain, os_error},
};

/// A record that crosses the border to the kernel as `N` bytes.
pub(crate) trait Record: FromBytes + IntoBytes + Immutable + Copy {}
impl<T: FromBytes + IntoBytes + Immutable + Copy> Record for T {}

fn bytes<const N: usize, T: Record>(record: &T) -> Result<[u8; N], MapError> {
    record.as_bytes().try_into().map_err(|_| MapError::Failed {
        doing: "encoding a record of",
        map: "?",
        reason: format!("{} bytes where {N} belong", size_of::<T>()),
    })
}

fn record<T: Record>(bytes: &[u8]) -> Option<T> {
    T::read_from_bytes(bytes).ok()
}

/// A hash map from `K` (of `KN` bytes) to `V` (of `VN` bytes).
pub(crate) struct Table<K, V, const KN: usize, const VN: usize> {
    name: &'static str,
    capacity: u32,
    id: u32,
    map: HashMap<MapData, [u8; KN], [u8; VN]>,
    records: PhantomData<fn() -> (K, V)>,
}

impl<K: Record, V: Record, const KN: usize, const VN: usize> Table<K, V, KN, VN> {
    /// Wraps a map that was taken out of the object.
    pub(crate) fn new(name: &'static str, map: Map) -> Result<Self, LoadError> {
        let open = |error| failed("opening", name, &error);
        let info = match &map {
            Map::HashMap(data) | Map::LruHashMap(data) => data.info().map_err(open)?,
            _ => {
                return Err(LoadError::Object {
                    kind: "hash map",
                    name,
                });
            }
        };
        Ok(Self {
            name,
            capacity: info.max_entries(),
            id: info.id(),
            map: map.try_into().map_err(open)?,
            records: PhantomData,
        })
    }

    /// A second handle to the same map.
    pub(crate) fn reopen(&self) -> Result<Self, LoadError> {
        let data =
            MapData::from_id(self.id).map_err(|error| failed("opening", self.name, &error))?;
        Self::new(self.name, Map::HashMap(data))
    }

    pub(crate) fn put(&mut self, key: &K, value: &V) -> Result<(), MapError> {
        self.map
            .insert(bytes::<KN, K>(key)?, bytes::<VN, V>(value)?, 0)
            .map_err(|error| full_or_failed(self.name, self.capacity, &error))
    }

    pub(crate) fn remove(&mut self, key: &K) -> Result<(), MapError> {
        match self.map.remove(&bytes::<KN, K>(key)?) {
            Ok(()) => Ok(()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(failed("removing from", self.name, &error)),
        }
    }

    /// Every entry, in no order. A map that changes meanwhile may show an entry twice or not at
    /// all; the number of steps is bounded all the same.
    pub(crate) fn rows(&self) -> Result<Vec<(K, V)>, MapError> {
        let mut rows = Vec::new();
        for row in self.map.iter().take(steps(self.capacity)) {
            match row {
                Ok((key, value)) => {
                    if let (Some(key), Some(value)) = (record(&key), record(&value)) {
                        rows.push((key, value));
                    }
                }
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(failed("reading", self.name, &error)),
            }
        }
        Ok(rows)
    }
}

/// A longest-prefix trie from `K` to `V`.
pub(crate) struct Trie<K, V, const KN: usize, const VN: usize> {
    name: &'static str,
    capacity: u32,
    map: LpmTrie<MapData, [u8; KN], [u8; VN]>,
    records: PhantomData<fn() -> (K, V)>,
}

impl<K: Record, V: Record, const KN: usize, const VN: usize> Trie<K, V, KN, VN> {
    /// Wraps a map that was taken out of the object.
    pub(crate) fn new(name: &'static str, map: Map) -> Result<Self, LoadError> {
        let open = |error| failed("opening", name, &error);
        let capacity = match &map {
            Map::LpmTrie(data) => data.info().map_err(open)?.max_entries(),
            _ => return Err(LoadError::Object { kind: "trie", name }),
        };
        Ok(Self {
            name,
            capacity,
            map: map.try_into().map_err(open)?,
            records: PhantomData,
        })
    }

    pub(crate) fn put(&mut self, prefix_len: u32, key: &K, value: &V) -> Result<(), MapError> {
        let key = Key::new(prefix_len, bytes::<KN, K>(key)?);
        self.map
            .insert(&key, bytes::<VN, V>(value)?, 0)
            .map_err(|error| full_or_failed(self.name, self.capacity, &error))
    }

    pub(crate) fn remove(&mut self, prefix_len: u32, key: &K) -> Result<(), MapError> {
        match self.map.remove(&Key::new(prefix_len, bytes::<KN, K>(key)?)) {
            Ok(()) => Ok(()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(failed("removing from", self.name, &error)),
        }
    }

    /// Every entry with its prefix length, in no order.
    pub(crate) fn rows(&self) -> Result<Vec<(u32, K, V)>, MapError> {
        let mut rows = Vec::new();
        for row in self.map.iter().take(steps(self.capacity)) {
            match row {
                Ok((key, value)) => {
                    if let (Some(k), Some(v)) = (record(&key.data()), record(&value)) {
                        rows.push((key.prefix_len(), k, v));
                    }
                }
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(failed("reading", self.name, &error)),
            }
        }
        Ok(rows)
    }
}

impl<K, V, const KN: usize, const VN: usize> std::fmt::Debug for Table<K, V, KN, VN> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}]", self.name, self.capacity)
    }
}

impl<K, V, const KN: usize, const VN: usize> std::fmt::Debug for Trie<K, V, KN, VN> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}]", self.name, self.capacity)
    }
}

/// How many entries a reader visits at most.
fn steps(capacity: u32) -> usize {
    usize::try_from(capacity)
        .unwrap_or(usize::MAX)
        .saturating_mul(2)
}

pub(crate) fn failed(
    doing: &'static str,
    map: &'static str,
    error: &aya::maps::MapError,
) -> MapError {
    MapError::Failed {
        doing,
        map,
        reason: chain(error),
    }
}

pub(crate) fn is_absent(error: &aya::maps::MapError) -> bool {
    matches!(error, aya::maps::MapError::KeyNotFound)
        || os_error(error).is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound)
}

/// Full hash maps say E2BIG, full tries ENOSPC; ENOMEM is the machine's being full.
pub(crate) fn full_or_failed(
    map: &'static str,
    capacity: u32,
    error: &aya::maps::MapError,
) -> MapError {
    const E2BIG: i32 = 7;
    const ENOSPC: i32 = 28;
    match os_error(error).and_then(std::io::Error::raw_os_error) {
        Some(E2BIG | ENOSPC) => MapError::Full { map, capacity },
        _ => failed("writing", map, error),
    }
}
