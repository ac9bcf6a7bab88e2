// Supabase's engine behind fastify, with the settings of its own server: `node server.mjs DATABASE_URL PORT SECRET`.
import { createRequire } from 'node:module'
import fastify from 'fastify'
import pino from 'pino'

// Its ES module looks for the migrations by a name that only CommonJS has.
const { StripeSync, runMigrations } = createRequire(import.meta.url)('@supabase/stripe-sync-engine')

const [databaseUrl, port, secret] = process.argv.slice(2)
const logger = pino({ level: 'info' })

await runMigrations({ databaseUrl, schema: 'stripe', logger })
const sync = new StripeSync({
  schema: 'stripe',
  stripeSecretKey: 'sk_test_bench',
  stripeWebhookSecret: secret,
  autoExpandLists: false,
  backfillRelatedEntities: true,
  revalidateObjectsViaStripeApi: [],
  poolConfig: { connectionString: databaseUrl, max: 10, keepAlive: true },
  logger,
})

const app = fastify({ loggerInstance: logger, disableRequestLogging: false })
app.removeAllContentTypeParsers()
app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, { raw: body }))
app.get('/healthz', async () => 'ok')
app.post('/webhooks/stripe', async (request, reply) => {
  await sync.processWebhook(request.body.raw, request.headers['stripe-signature'])
  return reply.send({ received: true })
})
await app.listen({ host: '127.0.0.1', port: Number(port) })
