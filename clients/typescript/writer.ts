/** Writes events in the transaction of the change they tell of: by an insert, and by postrider.emit. */
import { randomUUID } from 'node:crypto'
import { Client } from 'pg'

/** An insert: in order if whatever changes this order is locked before. */
async function place(database: Client, orderId: string): Promise<void> {
  await database.query("insert into purchase (id, state) values ($1, 'placed')", [orderId])
  await database.query(
    `insert into outbox (id, aggregatetype, aggregateid, type, payload)
     values ($1, 'order', $2, 'OrderPlaced', $3)`,
    [randomUUID(), orderId, { order: orderId }],
  )
}

/** postrider.emit: in order, whoever writes, and it works in every capture mode. */
async function pay(database: Client, orderId: string): Promise<void> {
  await database.query("update purchase set state = 'paid' where id = $1", [orderId])
  await database.query("select postrider.emit('order', $1, 'OrderPaid', $2::json)", [orderId, { order: orderId }])
}

async function inTransaction(database: Client, change: () => Promise<void>): Promise<void> {
  await database.query('begin')
  try {
    await change()
    await database.query('commit')
  } catch (cause) {
    await database.query('rollback')
    throw cause
  }
}

async function write(databaseUrl: string, orders: number): Promise<void> {
  const database = new Client({ connectionString: databaseUrl })
  await database.connect()
  for (let number = 0; number < orders; number++) {
    await inTransaction(database, () => place(database, `typescript-${number}`))
    await inTransaction(database, () => pay(database, `typescript-${number}`))
  }
  await database.end()
}

write(process.env.DATABASE_URL!, Number(process.argv[2])).catch((cause) => {
  console.error(cause)
  process.exit(1)
})
