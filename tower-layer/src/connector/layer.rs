use super::TimedConnector;
use tower_layer::Layer;

/// Measures how long a connector takes.
#[derive(Clone, Copy, Debug)]
pub struct ConnectTimesLayer {
    role: Role,
}

/// Where in the stack of connectors a layer sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Around everything: hands the times over.
    Whole,
    /// Around the TCP connector, below TLS.
    Tcp,
}

impl ConnectTimesLayer {
    /// The layer around the whole connector, TLS included. The only one that `http` needs; for `https`,
    /// [`tcp`](ConnectTimesLayer::tcp) inside lets it tell TCP from TLS.
    #[must_use]
    pub const fn new() -> Self {
        Self { role: Role::Whole }
    }

    /// The layer around the TCP connector, below TLS. Without a [`new`](ConnectTimesLayer::new) around it, it
    /// does nothing.
    #[must_use]
    pub const fn tcp() -> Self {
        Self { role: Role::Tcp }
    }
}

impl Default for ConnectTimesLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> Layer<C> for ConnectTimesLayer {
    type Service = TimedConnector<C>;

    fn layer(&self, inner: C) -> TimedConnector<C> {
        TimedConnector { inner, role: self.role }
    }
}
