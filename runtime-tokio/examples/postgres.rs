//! A database that only members of a realm can reach, and a client without agent: tokio-postgres over an SPN stream.
//!
//! `cargo run -p towline-tokio --example postgres ADDRESS "user=postgres dbname=postgres"`, with the address of a PostgreSQL server, starts,
//! with temporary certificates, a hub on this machine, a provider in front of the server, and a consumer that queries it. In the middle of a
//! transaction the hub is replaced: the transaction and the temporary table, which live only as long as the connection, survive.

mod throwaway;

use std::{env, error::Error, net::SocketAddr, process::ExitCode};

use throwaway::Realm;
use tokio::{io::copy_bidirectional, net::TcpStream};
use tokio_postgres::{Config, NoTls};
use towline_core::spn::Role;
use towline_tokio::endpoint::{Consumer, Provider};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(server), Some(database)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: postgres ADDRESS CONNECTION_STRING (e.g. 127.0.0.1:5432 \"user=postgres dbname=postgres\")");
        return Ok(ExitCode::from(2));
    };
    let server: SocketAddr = server.parse()?;
    let mut realm = Realm::start()?;

    // The service: each stream becomes a connection to the server.
    let mut provider = Provider::listen(realm.endpoint(Role::Provider)?, realm.port())?;
    tokio::spawn(async move {
        while let Some(mut stream) = provider.accept().await {
            tokio::spawn(async move {
                let mut tcp = TcpStream::connect(server).await?;
                copy_bidirectional(&mut stream, &mut tcp).await
            });
        }
    });

    // The user. The realm has encrypted and authenticated the stream already.
    let consumer = Consumer::start(realm.endpoint(Role::Consumer)?, realm.port())?;
    let mut config: Config = database.parse()?;
    config.ssl_mode(tokio_postgres::config::SslMode::Disable);
    let (mut client, connection) = config.connect_raw(consumer.connect().await?, NoTls).await?;
    tokio::spawn(connection);
    let transaction = client.transaction().await?;
    transaction.batch_execute("CREATE TEMPORARY TABLE squares (n bigint) ON COMMIT DROP").await?;
    for n in 1..=10_i64 {
        transaction.execute("INSERT INTO squares VALUES ($1)", &[&(n * n)]).await?;
        if n == 5 {
            realm.replace_hub().await?;
            println!("the hub was replaced");
        }
    }
    let row = transaction.query_one("SELECT count(*), sum(n)::bigint FROM squares", &[]).await?;
    let (count, sum): (i64, i64) = (row.get(0), row.get(1));
    transaction.commit().await?;
    println!("{count} squares, {sum} in all");
    Ok(ExitCode::SUCCESS)
}
