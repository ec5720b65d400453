//! Names, patterns over names, and the selectors policies write with them.
//!
//! In:  text of a policy (`matchName`, `matchPattern`) or the labels of a queried name.
//! Out: [`Fqdn`], [`Pattern`], [`NameSelector`], and indexes that match one name against many.
//! Not here: which rule a selector belongs to (`compiled`), the wire format (`dnsproxy/core`).
//!
//! Meaning: Cilium 1.19 `pkg/fqdn/matchpattern` and the regular expressions of its CRD. A text
//! has to pass both to be a policy here.

mod error;
mod index;
mod name;
mod pattern;
mod selector;

pub use error::NameError;
pub use index::{NameIndex, NameSet};
pub use name::{Fqdn, MAX_NAME_LEN};
pub use pattern::{Pattern, sanitize};
pub use selector::NameSelector;
