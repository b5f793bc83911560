use super::RequestBody;

/// What becomes of a counted request body before the service below takes it.
pub trait Rebody<B> {
    /// The body that the service below takes.
    type Body;

    /// Turns the counted body into that one.
    fn rebody(&self, body: RequestBody<B>) -> Self::Body;
}

/// Hands the counted body on as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsIs;

impl<B> Rebody<B> for AsIs {
    type Body = RequestBody<B>;

    fn rebody(&self, body: RequestBody<B>) -> RequestBody<B> {
        body
    }
}

/// Applies a function; made by [`EgressLayer::request_body`](super::EgressLayer::request_body).
#[derive(Clone, Copy, Debug)]
pub struct Mapped<F>(pub(super) F);

impl<F, B, T> Rebody<B> for Mapped<F>
where
    F: Fn(RequestBody<B>) -> T,
{
    type Body = T;

    fn rebody(&self, body: RequestBody<B>) -> T {
        (self.0)(body)
    }
}
