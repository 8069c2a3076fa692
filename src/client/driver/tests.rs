//! The driver, turn by turn: what it keeps meanwhile.

use futures::StreamExt;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::*;
use crate::abi::Value;
use crate::abi::command_request::RequestData;
use crate::codec::ProstCodec;

/// A driver that takes its turns when a test says so, and both its neighbours.
struct Setting {
    driver: Driver<DuplexStream>,
    orders: UnboundedSender<Order>,
    server: Framed<DuplexStream, ProstCodec<CommandRequest, CommandResponse>>,
}

impl Setting {
    fn new(room: usize) -> Self {
        let config = CodecConfig::default().with_compression(None);
        let (ours, theirs) = duplex(room);
        let (orders, received) = unbounded_channel();
        let (connection, _) = Connection::new(16);
        let back = orders.downgrade();
        Self {
            driver: Driver::new(ours, config, connection, received, back, 0),
            orders,
            server: Framed::new(theirs, ProstCodec::new(config)),
        }
    }

    fn permit(&self) -> OwnedSemaphorePermit {
        let room: &Arc<Semaphore> = &self.driver.connection.room;
        Arc::clone(room).try_acquire_owned().unwrap()
    }

    /// Gives an order for a request, whose answer comes as this says.
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
async fn a_subscription_that_is_dropped_keeps_nothing_though_it_cannot_be_said_yet() {
    let mut setting = Setting::new(64);
    let mailbox = Arc::<Mailbox>::default();
    let (reply, mut registration) = oneshot::channel();
    let order = Order::Subscribe {
        target: Target::Topic("news".to_owned()),
        mailbox: Arc::clone(&mailbox),
        reply,
        permit: setting.permit(),
    };
    setting.orders.send(order).unwrap();
    setting.turn().await;
    setting.request().await;
    setting.server.send(Value::from(1).into()).await.unwrap();
    setting.turn().await;
    let registration = registration.try_recv().unwrap().unwrap();

    let _answer = setting.call(large());
    setting.turn().await;
    let left = Arc::downgrade(&mailbox);
    drop((registration, mailbox));
    setting.turn().await;
    assert!(left.upgrade().is_none());

    // It is said as soon as it can be.
    let unsubscribe = CommandRequest::new_unsubscribe("news", 1);
    loop {
        tokio::select! {
            biased;
            request = setting.server.next() => {
                if request.unwrap().unwrap() == unsubscribe {
                    break;
                }
            }
            ended = poll_fn(|cx| setting.driver.poll(cx)) => panic!("{ended:?}"),
        }
    }
}

#[tokio::test]
async fn what_a_large_request_took_is_given_back_when_it_is_sent() {
    let mut setting = Setting::new(1024 * 1024);
    let _answer = setting.call(large());
    setting.turn().await;
    let buffer = setting.driver.framed.write_buffer_mut();
    assert!(buffer.is_empty());
    // A buffer that was used shows what it has when it is asked for all of it.
    buffer.reserve(1);
    let kept = buffer.capacity();
    assert!(kept < 16 * 1024, "{kept}");
    setting.request().await;
}
