//! Which of the known prefixes cover a prefix.
//!
//! In:  a prefix and the prefixes policies name.
//! Out: those that contain it: a rule for a wide prefix also speaks for the narrow one inside it.
//! Not here: numbers (`local`).

use ipnet::IpNet;

/// The prefixes out of `known` that contain `prefix`, itself included, in the order of `known`.
pub fn covering_prefixes<'a>(
    prefix: IpNet,
    known: impl IntoIterator<Item = &'a IpNet> + 'a,
) -> impl Iterator<Item = IpNet> + 'a {
    known
        .into_iter()
        .copied()
        .filter(move |wide| wide.contains(&prefix))
}
