//! Futures that have only so much time.

use std::{
    future::{self, Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use super::runtime::{Alarm, Runtime};

/// What `work` gives; `None` if `time` passes first.
pub(super) async fn within<R: Runtime, T>(time: Duration, work: impl Future<Output = T>) -> Option<T> {
    let (mut work, mut alarm, due) = (pin!(work), R::Alarm::new(), R::now() + time);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if alarm.poll(cx, due) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Lets time pass.
pub(super) async fn sleep<R: Runtime>(time: Duration) {
    within::<R, ()>(time, future::pending()).await;
}
