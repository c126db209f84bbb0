//! A wire that several sources share.

/// How many sources hold the wire up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire(u32);

impl Wire {
    pub(crate) const DOWN: Self = Self(0);

    pub(crate) const fn is_up(self) -> bool {
        self.0 > 0
    }

    /// One source goes up or down. Returns whether the wire rose.
    pub(crate) const fn set_source(&mut self, up: bool) -> bool {
        let was_up = self.is_up();
        self.0 = if up {
            self.0.saturating_add(1)
        } else {
            self.0.saturating_sub(1)
        };
        !was_up && self.is_up()
    }
}
