//! temp
use crate::error::*;
use crate::event::Bucket;
use std::str::FromStr;
#[derive(Clone, Debug)]
pub struct OutboxName { pub schema: String, pub table: String }
impl FromStr for OutboxName { type Err = Error; fn from_str(t: &str) -> Result<Self> { let (s, t) = t.split_once('.').unwrap_or(("public", t)); Ok(Self { schema: s.into(), table: t.into() }) } }
impl std::fmt::Display for OutboxName { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, "{}.{}", self.schema, self.table) } }
#[derive(Clone, Copy, Debug)]
pub struct PayloadType;
impl FromStr for PayloadType { type Err = Error; fn from_str(_: &str) -> Result<Self> { Ok(Self) } }
#[derive(Clone, Debug)]
pub struct Request { pub outbox: OutboxName, pub buckets: Option<u16>, pub payload: Option<PayloadType>, pub generation_seconds: Option<u32> }
#[derive(Clone, Debug)]
pub struct Outbox { pub buckets: u16, pub sequence: String }
impl Outbox { pub fn bucket_table(&self, b: Bucket) -> String { format!("public.outbox_b{:02}", b.0) } }
pub async fn load(_: &tokio_postgres::Client, _: &OutboxName) -> Result<Outbox> { Ok(Outbox { buckets: 16, sequence: "public.outbox_seq_seq".into() }) }
pub async fn up(client: &mut tokio_postgres::Client, r: &Request) -> Result<String> {
    let sql = print(r)?;
    client.batch_execute(&sql).await.map_err(|e| crate::postgres::classify("up", e))?; Ok("done".into()) }
pub fn print(r: &Request) -> Result<String> { Ok([include_str!("../sql/migrations/0001_control.sql"), &format!("insert into postrider.outbox values (true, '{}', '{}', {}, 'json', 600);", r.outbox.schema, r.outbox.table, r.buckets.unwrap_or(16)), include_str!("../sql/migrations/0002_outbox.sql"), include_str!("../sql/migrations/0003_interface.sql")].concat()) }
pub struct Status;
impl Status { pub fn is_pending(&self) -> bool { false } }
impl std::fmt::Display for Status { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, "temp") } }
pub async fn status(_: &tokio_postgres::Client) -> Result<Status> { Ok(Status) }
