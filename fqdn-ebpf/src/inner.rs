//! A hash map behind an index of another map, with the least recently used entry going first.
//!
//! In:  keys and values of fixed sizes.
//! Out: [`LruTable`], what `ArrayOfMaps` holds: sizes in the object, operations for the programs.
//! Not here: making such maps (`loader/src/slots.rs`).
//!
//! The library's own map names the types of its records to the kernel. Kernels before 6.4 compare
//! what such types may hold (`timer_off` in `bpf_map_meta_equal`) with "not known" of a map made
//! without types, and refuse it. This one names sizes only, like the maps the loader puts in.

use core::{marker::PhantomData, ptr};

use aya_ebpf::{
    bindings::bpf_map_type::BPF_MAP_TYPE_LRU_HASH,
    helpers::{bpf_map_delete_elem, bpf_map_lookup_elem, bpf_map_update_elem},
};

/// A map from `K` (of `KEY` bytes) to `V` (of `VALUE` bytes). Its fields only describe it: numbers
/// are the lengths of arrays that pointers lead to, as in every map that BTF defines.
#[repr(C)]
pub(crate) struct LruTable<K, V, const KEY: usize, const VALUE: usize, const ENTRIES: usize> {
    r#type: *const [i32; BPF_MAP_TYPE_LRU_HASH as usize],
    key_size: *const [i32; KEY],
    value_size: *const [i32; VALUE],
    max_entries: *const [i32; ENTRIES],
    records: PhantomData<(K, V)>,
}

impl<K, V, const KEY: usize, const VALUE: usize, const ENTRIES: usize>
    LruTable<K, V, KEY, VALUE, ENTRIES>
{
    const SIZES: () = assert!(size_of::<K>() == KEY && size_of::<V>() == VALUE);

    /// The value of a key.
    ///
    /// # Safety
    /// The kernel may give its place to another entry while the reference lives: what is read must
    /// make sense all the same.
    #[inline(always)]
    pub(crate) unsafe fn get(&self, key: &K) -> Option<&V> {
        // SAFETY: the element stays readable for the run; the rest is the caller's.
        self.get_ptr_mut(key).map(|value| unsafe { &*value })
    }

    /// Where the value of a key is. Other processors may be at it too.
    #[inline(always)]
    pub(crate) fn get_ptr_mut(&self, key: &K) -> Option<*mut V> {
        let () = Self::SIZES;
        // SAFETY: the kernel handed out the map, and reads as many bytes as a key has.
        let value = unsafe { bpf_map_lookup_elem(self.map(), ptr::from_ref(key).cast()) };
        (!value.is_null()).then_some(value.cast())
    }

    /// Writes an entry.
    #[inline(always)]
    pub(crate) fn insert(&self, key: &K, value: &V, flags: u64) -> Result<(), i64> {
        let () = Self::SIZES;
        let (key, value) = (ptr::from_ref(key).cast(), ptr::from_ref(value).cast());
        // SAFETY: as above, and as many bytes as a value has.
        match unsafe { bpf_map_update_elem(self.map(), key, value, flags) } {
            0 => Ok(()),
            error => Err(error),
        }
    }

    /// Removes an entry.
    #[inline(always)]
    pub(crate) fn remove(&self, key: &K) -> Result<(), i64> {
        let () = Self::SIZES;
        // SAFETY: as above.
        match unsafe { bpf_map_delete_elem(self.map(), ptr::from_ref(key).cast()) } {
            0 => Ok(()),
            error => Err(error),
        }
    }

    #[inline(always)]
    const fn map(&self) -> *mut core::ffi::c_void {
        ptr::from_ref(self).cast_mut().cast()
    }
}
