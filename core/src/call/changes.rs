//! What an attempt changes in the request that the application made.

/// A declared change of a request: another host, other headers, another path, another model. Made by a rule
/// (`[[rollout]]`, `failover`, a budget's `downgrade`), applied by the adapter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changes {
    /// `host` or `host:port` to send it to instead. Scheme, method and query stay.
    pub host: Option<String>,
    /// Put before the path.
    pub path_prefix: Option<String>,
    /// Headers to set, in place of those of the same name.
    pub headers: Vec<(String, String)>,
    /// The value that the request's JSON body gets in its top-level field `model`.
    pub model: Option<String>,
}
