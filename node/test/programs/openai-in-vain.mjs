// Asks until the SDK gives up, and ends.
import OpenAI from 'openai'
import farcall from '../../index.js'

const [, , baseURL, customer] = process.argv
farcall.install()
const openai = new OpenAI({ apiKey: 'sk-test', baseURL, maxRetries: 2 })
const asking = farcall.withCustomer(customer, () =>
  openai.chat.completions.create({ model: 'm', messages: [{ role: 'user', content: 'hello' }] }))
const error = await asking.then(() => undefined, (error) => error)
if (error?.status !== 429) throw error ?? new Error('it was answered')
