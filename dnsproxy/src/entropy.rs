//! Unpredictable numbers for query ids and source ports (RFC 5452).
//!
//! In:  a seed of the operating system.
//! Out: a stream of numbers that whoever sees some cannot continue.
//! Not here: what they are used for (`dnsproxy-core`).

use std::io;

use rand::{Rng, SeedableRng, rngs::StdRng, rngs::SysRng};

/// A generator of its own, seeded by the operating system: a number costs no system call.
///
/// # Errors
/// When the operating system has no randomness to give.
pub fn entropy() -> io::Result<Box<dyn FnMut() -> u64 + Send>> {
    let mut generator = StdRng::try_from_rng(&mut SysRng).map_err(io::Error::other)?;
    Ok(Box::new(move || generator.next_u64()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn two_generators_share_nothing() {
        let mut one = entropy().unwrap();
        let mut other = entropy().unwrap();
        let numbers: HashSet<u64> = (0..1000).flat_map(|_| [one(), other()]).collect();
        assert_eq!(numbers.len(), 2000);
    }
}
