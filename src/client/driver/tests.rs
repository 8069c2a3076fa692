//! The driver, turn by turn: what it keeps in memory.

use futures::StreamExt;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::*;
use crate::abi::Value;
use crate::abi::command_request::RequestData;
use crate::codec::ProstCodec;

/// A driver that a test polls turn by turn, with both ends that it talks to.
struct Harness {
    driver: Driver<DuplexStream>,
    orders: UnboundedSender<Order>,
    server: Framed<DuplexStream, ProstCodec<CommandRequest, CommandResponse>>,
}

impl Harness {
    fn new(pipe_size: usize) -> Self {
        let config = CodecConfig::default().with_compression(None);
        let (ours, theirs) = duplex(pipe_size);
        let (orders, received) = unbounded_channel();
        let (connection, _) = Connection::new(16);
        let weak_orders = orders.downgrade();
        Self {
            driver: Driver::new(ours, config, connection, received, weak_orders, 0),
            orders,
            server: Framed::new(theirs, ProstCodec::new(config)),
        }
    }

    fn permit(&self) -> OwnedSemaphorePermit {
        let permits: &Arc<Semaphore> = &self.driver.connection.permits;
        Arc::clone(permits).try_acquire_owned().unwrap()
    }

    /// Orders a request and returns the receiver of its answer.
    fn call(&self, request: CommandRequest) -> oneshot::Receiver<Reply<CommandResponse>> {
        let (reply, answer) = oneshot::channel();
        let order = Order::Call {
            request,
            reply,
            permit: self.permit(),
        };
        self.orders.send(order).unwrap();
        answer
    }

    async fn turn(&mut self) {
        let turn = poll_fn(|cx| Poll::Ready(self.driver.poll(cx))).await;
        assert!(turn.is_pending());
    }

    async fn request(&mut self) -> RequestData {
        let request = self.server.next().await.unwrap().unwrap();
        request.request_data.unwrap()
    }
}

fn large() -> CommandRequest {
    CommandRequest::new_hset("t", "k", Value::binary(vec![7; 100 * 1024]))
}

#[tokio::test]
async fn dropped_subscription_frees_its_mailbox_before_unsubscribe_can_be_sent() {
    let mut harness = Harness::new(64);
    let mailbox = Arc::<Mailbox>::default();
    let (reply, mut registration) = oneshot::channel();
    let order = Order::Subscribe {
        target: Target::Topic("news".to_owned()),
        mailbox: Arc::clone(&mailbox),
        reply,
        permit: harness.permit(),
    };
    harness.orders.send(order).unwrap();
    harness.turn().await;
    harness.request().await;
    harness.server.send(Value::from(1).into()).await.unwrap();
    harness.turn().await;
    let registration = registration.try_recv().unwrap().unwrap();

    let _answer = harness.call(large());
    harness.turn().await;
    let weak_mailbox = Arc::downgrade(&mailbox);
    drop((registration, mailbox));
    harness.turn().await;
    assert!(weak_mailbox.upgrade().is_none());

    // The request is sent as soon as the socket takes it.
    let unsubscribe = CommandRequest::new_unsubscribe("news", 1);
    loop {
        tokio::select! {
            biased;
            request = harness.server.next() => {
                if request.unwrap().unwrap() == unsubscribe {
                    break;
                }
            }
            ended = poll_fn(|cx| harness.driver.poll(cx)) => panic!("{ended:?}"),
        }
    }
}

#[tokio::test]
async fn large_write_buffer_is_freed_once_the_request_is_sent() {
    let mut harness = Harness::new(1024 * 1024);
    let _answer = harness.call(large());
    harness.turn().await;
    let buffer = harness.driver.framed.write_buffer_mut();
    assert!(buffer.is_empty());
    // `capacity` of a used buffer reads low until `reserve` reclaims its front.
    buffer.reserve(1);
    let kept = buffer.capacity();
    assert!(kept < 16 * 1024, "{kept}");
    harness.request().await;
}
