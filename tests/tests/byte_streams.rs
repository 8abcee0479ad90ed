//! A byte-stream binding whose connections are no TCP connections: those of a service behind a hub, in memory, and streams of the ecosystems.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use towline_core::{
    host::{
        ByteStream, Names, Runtime, StreamLoop,
        endpoint::{Consumer, Provider},
        pair,
    },
    net::StreamBinding as _,
    spn::Role,
};
use towline_smol::Smol;
use towline_tests::{
    greet::{
        binding::Greeter,
        machine::{Config, Outcome},
    },
    ours::{OurHub, Realm},
};
use towline_tokio::Tokio;

/// The greeter does not depend on the kind of stream.
const NOWHERE: ([u8; 4], u16) = ([0; 4], 0);

/// Gives the streams of `next` to a greeter, until one client was not greeted. Returns the number of greeted clients.
async fn greet<R: Runtime, S: ByteStream>(mut next: impl FnMut(&mut Context<'_>) -> Poll<S>) -> usize {
    let names = Names::Hosts(Arc::default());
    let mut streams = StreamLoop::<Greeter, R>::new(Greeter::new(Config::default()), Vec::new(), names, 4096);
    let mut greeted = 0;
    poll_fn(|cx| {
        loop {
            if streams.binding().wants_accept()
                && let Poll::Ready(stream) = next(cx)
            {
                let conn = streams.binding_mut().handle_incoming(R::now(), SocketAddr::from(NOWHERE));
                streams.attach(conn, stream);
                continue;
            }
            match streams.poll_notice(cx) {
                Poll::Ready(Some(ended)) if ended.outcome == Outcome::Greeted => greeted += 1,
                Poll::Ready(Some(_)) => return Poll::Ready(greeted),
                Poll::Ready(None) => panic!("the greeter ended by itself"),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// Says a name; returns what comes back, up to an end in good order.
async fn ask(mut stream: impl ByteStream, name: &'static str) -> io::Result<String> {
    let mut left = bytes::Bytes::from_static(name.as_bytes());
    let mut reply = Vec::new();
    poll_fn(|cx| {
        while !left.is_empty() {
            match stream.poll_write(cx, &left)? {
                Poll::Ready(written) => drop(left.split_to(written)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(io::Result::Ok(()))
    })
    .await?;
    poll_fn(|cx| stream.poll_flush(cx)).await?;
    loop {
        let bytes = poll_fn(|cx| stream.poll_read(cx, 7)).await?;
        if bytes.is_empty() {
            poll_fn(|cx| stream.poll_finish(cx)).await?;
            return Ok(String::from_utf8(reply).expect("a greeting"));
        }
        reply.extend_from_slice(&bytes);
    }
}

/// Behind a hub: the greeter is a provider, its clients are connections of a consumer.
async fn behind_a_hub<R: Runtime>() {
    let realm = Realm::new();
    let hub = OurHub::start(&realm, false);
    let port = hub.address().port();
    let mut provider = Provider::<R>::listen(realm.endpoint(Role::Provider, "p"), port).unwrap();
    let consumer = Consumer::<R>::start(realm.endpoint(Role::Consumer, "c"), port).unwrap();
    let greeter = greet::<R, _>(move |cx| pin!(provider.accept()).poll(cx).map(|stream| stream.expect("open").into()));
    let clients = async {
        for name in ["Ada\n", "Grace\n"] {
            let stream = consumer.connect().await.unwrap();
            assert_eq!(ask(stream.into(), name).await.unwrap(), format!("hello {name}"));
        }
        // No name: it is not greeted, and its end is in good order all the same.
        assert_eq!(ask(consumer.connect().await.unwrap().into(), "\n").await.unwrap(), "");
    };
    assert_eq!(both(greeter, clients).await.0, 2);
}

/// In memory, through the ends of the library and through the ecosystem's traits.
async fn in_memory<R: Runtime>(wrap: impl Fn(R::Stream) -> Pin<Box<dyn Future<Output = io::Result<String>>>>) {
    let ((first, a), (second, b), (last, c)) = (pair(), pair(), pair());
    let mut ends = vec![c, b, a];
    let greeter = greet::<R, _>(move |_| ends.pop().map_or(Poll::Pending, Poll::Ready));
    let clients = async {
        assert_eq!(ask(first, "Ada\n").await.unwrap(), "hello Ada\n");
        assert_eq!(wrap(R::Stream::from(second)).await.unwrap(), "hello Grace\n");
        assert_eq!(ask(last, "\n").await.unwrap(), "");
    };
    assert_eq!(both(greeter, clients).await.0, 2);
}

/// Runs both to their ends.
async fn both<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut of_a, mut of_b) = (None, None);
    poll_fn(|cx| {
        if of_a.is_none()
            && let Poll::Ready(found) = a.as_mut().poll(cx)
        {
            of_a = Some(found);
        }
        if of_b.is_none()
            && let Poll::Ready(found) = b.as_mut().poll(cx)
        {
            of_b = Some(found);
        }
        match (of_a.take(), of_b.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (of_a, of_b) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}

fn on_tokio(task: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), task).await.expect("in time") });
}

#[test]
fn tokio_greets_behind_a_hub() {
    on_tokio(behind_a_hub::<Tokio>());
}

#[test]
fn smol_greets_behind_a_hub() {
    smol::block_on(behind_a_hub::<Smol>());
}

#[test]
fn tokio_greets_in_memory() {
    on_tokio(in_memory::<Tokio>(|stream| Box::pin(ask(towline_tokio::Io::new(stream), "Grace\n"))));
}

#[test]
fn smol_greets_in_memory() {
    smol::block_on(in_memory::<Smol>(|stream| Box::pin(ask(towline_smol::stream::Io::new(stream), "Grace\n"))));
}
