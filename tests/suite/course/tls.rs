//! Lecture 37: TLS at both ends, with and without a client certificate.

use kv::{
    CommandRequest, MemTable, ProstClientStream, ProstServerStream, Service, TlsClientConnector,
    TlsIdentity, TlsRoots, TlsServerAcceptor, Value,
};
use tokio::net::{TcpListener, TcpStream};

use super::{Result, assert_res_ok};
use crate::support::certificates::Authority;

const DOMAIN: &str = "kvserver.acme.inc";

async fn serve(listener: TcpListener, acceptor: TlsServerAcceptor) -> Result<()> {
    let service: Service = Service::new(MemTable::new());
    loop {
        let tls = acceptor.clone();
        let (stream, _) = listener.accept().await?;
        let svc = service.clone();
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else {
                return;
            };
            let stream = ProstServerStream::new(stream, svc);
            stream.process().await.unwrap();
        });
    }
}

async fn session(address: std::net::SocketAddr, connector: &TlsClientConnector) -> Result<()> {
    let stream = TcpStream::connect(address).await?;
    let stream = connector.connect(DOMAIN, stream).await?;
    let mut client = ProstClientStream::new(stream);
    let cmd = CommandRequest::new_hset("t1", "k1", "v1".into());
    let res = client.execute(cmd).await?;
    assert_res_ok(&res, &[Value::default()], &[]);
    let res = client.execute(CommandRequest::new_hdel("t1", "k1")).await?;
    assert_res_ok(&res, &["v1".into()], &[]);
    Ok(())
}

#[tokio::test]
async fn tls_with_and_without_a_client_certificate() -> Result<()> {
    let ca = Authority::new("acme");
    let (server, client) = (ca.server(&[DOMAIN]), ca.client());
    let ca_cert = ca.pem();
    let roots = || TlsRoots::from_pem(ca_cert.as_bytes());
    let server_identity =
        || TlsIdentity::from_pem(server.certificate.as_bytes(), server.key.as_bytes());
    let client_identity =
        TlsIdentity::from_pem(client.certificate.as_bytes(), client.key.as_bytes())?;
    let anonymous = TlsClientConnector::new(roots()?, None)?;
    let known = TlsClientConnector::new(roots()?, Some(client_identity))?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let acceptor = TlsServerAcceptor::new(server_identity()?, None)?;
    tokio::spawn(serve(listener, acceptor));
    session(address, &anonymous).await?;
    session(address, &known).await?;
    let stream = TcpStream::connect(address).await?;
    assert!(
        anonymous
            .connect("kvserver1.acme.inc", stream)
            .await
            .is_err()
    );

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let acceptor = TlsServerAcceptor::new(server_identity()?, Some(roots()?))?;
    tokio::spawn(serve(listener, acceptor));
    session(address, &known).await?;
    assert!(session(address, &anonymous).await.is_err());
    Ok(())
}
