//! temp
use crate::error::*;
use crate::snapshot::Snapshot;
use bytes::{BufMut, BytesMut};
use tokio_postgres::types::*;
#[derive(Clone, Debug)]
pub struct DatabaseConfig(pub tokio_postgres::Config);
#[derive(Debug)]
pub struct Connection { client: tokio_postgres::Client, task: tokio::task::JoinHandle<()> }
impl Connection { pub fn client(&self)->&tokio_postgres::Client {&self.client} pub fn client_mut(&mut self)->&mut tokio_postgres::Client {&mut self.client} }
impl Drop for Connection { fn drop(&mut self) { self.task.abort() } }
pub async fn connect(database: &DatabaseConfig, purpose: &str) -> Result<Connection> {
    let (client, connection) = database.0.connect(tokio_postgres::NoTls).await.map_err(|e| classify(purpose, e))?;
    let task = tokio::spawn(async move { let _ = connection.await; });
    client.batch_execute("set default_transaction_isolation = 'read committed'; set row_security=off; set jit=off; set search_path=pg_catalog; set max_parallel_workers_per_gather=0").await.map_err(|e| classify(purpose, e))?;
    Ok(Connection { client, task })
}
pub fn classify(operation: &str, error: tokio_postgres::Error) -> Error { Error::new(ErrorKind::PostgresUnavailable, format!("{operation}: {error:?}")) }
pub struct RawBytes<'a>(pub &'a [u8]);
impl<'a> FromSql<'a> for RawBytes<'a> { fn from_sql(_: &Type, raw: &'a [u8]) -> std::result::Result<Self, Box<dyn std::error::Error + Sync + Send>> { Ok(Self(raw)) } fn accepts(_: &Type) -> bool { true } }
#[derive(Debug)]
pub struct PgSnapshot(pub Snapshot);
impl ToSql for PgSnapshot {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.put_i32(self.0.in_progress().len() as i32); out.put_u64(self.0.xmin()); out.put_u64(self.0.xmax());
        for x in self.0.in_progress() { out.put_u64(*x); } Ok(IsNull::No) }
    fn accepts(t: &Type) -> bool { *t == Type::PG_SNAPSHOT }
    to_sql_checked!();
}
impl<'a> FromSql<'a> for PgSnapshot {
    fn from_sql(_: &Type, raw: &'a [u8]) -> std::result::Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        let n = |i: usize| u64::from_be_bytes(raw[i..i+8].try_into().unwrap());
        let xip = (0..(raw.len()-20)/8).map(|i| n(20+8*i)).collect();
        Ok(Self(Snapshot::new(n(4), n(12), xip)?)) }
    fn accepts(t: &Type) -> bool { *t == Type::PG_SNAPSHOT }
}
macro_rules! eight { ($n:ident, $t:expr) => {
#[derive(Debug)] pub struct $n(pub u64);
impl ToSql for $n { fn to_sql(&self, _: &Type, out: &mut BytesMut) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> { out.put_u64(self.0); Ok(IsNull::No) } fn accepts(t: &Type) -> bool { *t == $t } to_sql_checked!(); }
impl<'a> FromSql<'a> for $n { fn from_sql(_: &Type, raw: &'a [u8]) -> std::result::Result<Self, Box<dyn std::error::Error + Sync + Send>> { Ok(Self(u64::from_be_bytes(raw.try_into()?))) } fn accepts(t: &Type) -> bool { *t == $t } }
}}
eight!(Xid8, Type::XID8); eight!(Lsn, Type::PG_LSN);
impl DatabaseConfig {
    pub fn parse(url: &str) -> Result<Self> { url.parse().map(Self).map_err(|e: tokio_postgres::Error| Error::new(ErrorKind::Config, format!("database URL: {e}"))) }
    pub fn from_environment() -> Result<Self> { let mut c = tokio_postgres::Config::new(); c.host(std::env::var("PGHOST").unwrap_or("localhost".into())); Ok(Self(c)) }
    pub fn display_name(&self) -> String { format!("{:?}:{:?}/{}", self.0.get_hosts(), self.0.get_ports(), self.0.get_dbname().unwrap_or("")) }
}
