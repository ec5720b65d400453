//! Who wins where several entries match.
//!
//! In:  the tier and place of a rule, what it does.
//! Out: one number, the higher one wins.
//! Not here: which numbers a tier has (`compile`).
//!
//! Upper 24 bits: tier and place. Low byte: in the order of `pkg/policy/types/entry.go` of Cilium,
//! except that a redirect to a proxy that is not there is weaker than a plain allow.

use super::Action;

/// How early a rule is asked: the higher one first. 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(u32);

impl Level {
    /// Where nobody speaks.
    pub const DEFAULT: Self = Self(0);
    /// The tier that Cilium's and Kubernetes' policies share.
    pub const NORMAL: Self = Self(0x10_0000);
    /// The last level there is.
    const MAX: u32 = 0xff_ffff;

    /// So many levels above.
    #[must_use]
    pub const fn above(self, levels: u32) -> Self {
        let level = self.0.saturating_add(levels);
        Self(if level > Self::MAX { Self::MAX } else { level })
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Who wins where several entries match: the higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Precedence(u32);

impl Precedence {
    /// The precedence of an action in the tier that Cilium and Kubernetes policies share.
    pub const fn of(action: Action) -> Self {
        Self::at(Level::NORMAL, action)
    }

    /// The precedence of an action at some level.
    pub const fn at(level: Level, action: Action) -> Self {
        let low = match action {
            Action::Deny | Action::Mixed => 255,
            Action::RedirectDns => 121,
            Action::Allow => 2,
            // Without the proxy, what any other rule allows is allowed.
            Action::NeedsProxy => 1,
            Action::Refuse => 0,
        };
        Self(level.0 << 8 | low)
    }

    /// Of a rule that leaves the decision to the next tier: below all others of its level.
    pub(crate) const fn pass(level: Level) -> Self {
        Self(level.0 << 8)
    }

    /// Of what happens where nobody speaks: any other entry wins.
    pub(crate) const fn otherwise() -> Self {
        Self(0)
    }

    /// The level it belongs to.
    pub const fn level(self) -> Level {
        Level(self.0 >> 8)
    }

    /// The number as the POLICY map holds it.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// A number read back from the kernel.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }
}
