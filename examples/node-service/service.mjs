// A service of ours: it summarises the GitHub issues of three customers with OpenAI, and tells Slack.
// Farcall needs three things of it: an import, `install`, and the customer's name around each unit of work.
import { parseArgs } from 'node:util'
import axios from 'axios'
import farcall from 'farcall'
import OpenAI from 'openai'

farcall.install({ service: 'node-service' })

const { values } = parseArgs({ options: { seconds: { type: 'string', default: '20' } } })
const end = Date.now() + Number(values.seconds) * 1_000

const customers = ['acme', 'globex', 'initech']
const openai = new OpenAI({ apiKey: process.env.OPENAI_API_KEY ?? 'sk-demo', maxRetries: 0 })
const github = axios.create({ baseURL: 'https://api.github.com', headers: { accept: 'application/vnd.github+json' } })

/** What this program itself knows of its calls, to be compared with what Farcall says. */
const made = { 'app.launchdarkly.com': 0, 'api.github.com': 0, 'api.openai.com': 0, 'hooks.slack.com': 0 }

/** Which features are on. Asked anew for every unit of work: this is what Farcall will point out. */
async function flags () {
  made['app.launchdarkly.com'] += 1
  const response = await fetch('https://app.launchdarkly.com/sdk/latest-all', { headers: { authorization: 'sdk-demo' } })
  return await response.json()
}

async function issues (customer) {
  made['api.github.com'] += 1
  const { data } = await github.get(`/repos/${customer}/shop/issues`, { params: { state: 'open' } })
  return data
}

/** The summary, word by word as it comes. */
async function summary (issues) {
  made['api.openai.com'] += 1
  const stream = await openai.chat.completions.create({
    model: 'gpt-5-mini',
    stream: true,
    messages: [{ role: 'user', content: `Summarise: ${JSON.stringify(issues).slice(0, 2_000)}` }]
  })
  let text = ''
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? ''
  return text
}

async function tell (text) {
  made['hooks.slack.com'] += 1
  await axios.post('https://hooks.slack.com/services/T0DEMO/B0DEMO/demo', { text })
}

async function work (customer) {
  await flags()
  const text = await summary(await issues(customer))
  await tell(`${customer}: ${text}`)
}

let failed = 0
for (let unit = 0; Date.now() < end; unit += 1) {
  const customer = customers[unit % customers.length]
  try {
    await farcall.withCustomer(customer, work, customer)
  } catch (error) {
    failed += 1
    console.error(`${customer}: ${error}`)
  }
  await new Promise((resolve) => setTimeout(resolve, 100))
}

await farcall.flush()
console.log(JSON.stringify({ service: 'node-service', calls: made, failed }))
