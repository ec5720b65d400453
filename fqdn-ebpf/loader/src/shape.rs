//! Whether a pinned map is one of ours.
//!
//! In:  the object's maps, their capacities, paths where maps are pinned.
//! Out: nothing, or an error that names the file and what is wrong with it.
//! Not here: what is in the maps (`adopt`, `carry`).
//!
//! A map of the same name but of another kind would be read as what it is not: the kernel checks a
//! program's accesses against the map it was loaded with, not against what the map means.

use std::path::Path;

use aya::maps::MapInfo;
use aya_obj::Object;

use crate::{LoadError, Pins, Sizes, error::chain};

/// What a map is like.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            kind,
            key,
            value,
            entries,
        } = self;
        write!(
            f,
            "{entries} entries of {key} + {value} bytes, kind {kind} of `enum bpf_map_type`"
        )
    }
}

/// Looks at every map that is pinned already.
pub(crate) fn check(object: &[u8], sizes: &Sizes, pins: &Pins) -> Result<(), LoadError> {
    let object = Object::parse(object).map_err(|error| LoadError::Other(chain(&error)))?;
    let capacities = sizes.capacities();
    for (name, path) in pins.maps() {
        if !path.exists() {
            continue;
        }
        let ours = object
            .maps
            .get(name)
            .ok_or(LoadError::Object { kind: "map", name })?;
        let expected = Shape {
            kind: ours.map_type(),
            key: ours.key_size(),
            value: ours.value_size(),
            entries: capacities
                .iter()
                .find(|(of, _)| *of == name)
                .map_or(ours.max_entries(), |(_, entries)| *entries),
        };
        match found(&path) {
            Ok(found) if found == expected => {}
            Ok(found) => {
                return Err(LoadError::Foreign {
                    path,
                    what: format!("a map of {found}; ours has {expected}"),
                });
            }
            Err(error) => {
                return Err(LoadError::Foreign {
                    path,
                    what: format!("no map ({error})"),
                });
            }
        }
    }
    Ok(())
}

fn found(path: &Path) -> Result<Shape, String> {
    let info = MapInfo::from_pin(path).map_err(|error| chain(&error))?;
    Ok(Shape {
        kind: info.map_type().map_err(|error| chain(&error))? as u32,
        key: info.key_size(),
        value: info.value_size(),
        entries: info.max_entries(),
    })
}
