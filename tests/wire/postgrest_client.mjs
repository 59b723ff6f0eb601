// What @supabase/postgrest-js makes of a list of calls: JSON on standard input, JSON out.
//
// Arguments: the folder of the package, the base address. A call is {table, select, options,
// steps}, and a step is a method of the builder with its arguments.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const [folder, base] = process.argv.slice(2)
const { PostgrestClient } = await import(pathToFileURL(join(folder, 'dist', 'index.mjs')))
const client = new PostgrestClient(base)

async function answered({ table, select, options, steps }) {
  let builder = client.from(table).select(select, options)
  for (const [method, ...values] of steps) builder = builder[method](...values)
  try {
    const { data, error, count, status } = await builder.retry(false)
    return { data, error, count, status }
  } catch (thrown) {
    return { thrown: { name: thrown.name, message: thrown.message, code: thrown.code } }
  }
}

const answers = []
for (const call of JSON.parse(readFileSync(0, 'utf8'))) answers.push(await answered(call))
console.log(JSON.stringify(answers))
