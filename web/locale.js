// Shows the nodes of this pack in the language of the frontend.
//
// Frontends of 2025 read a pack's translations before those of their own language, which then take
// their place; so the texts are put into the definitions of the nodes, before these are registered.

import { app } from '/scripts/app.js'
import { api } from '/scripts/api.js'

const PREFIX = 'FuseDream'

function translate(definition, texts) {
  definition.display_name = texts.display_name
  definition.description = texts.description
  for (const group of Object.values(definition.input ?? {})) {
    for (const [id, spec] of Object.entries(group ?? {})) {
      const own = texts.inputs?.[id]
      if (!own || !Array.isArray(spec)) continue
      spec[1] = { ...spec[1], display_name: own.name, tooltip: own.tooltip }
    }
  }
  for (const [index, own] of Object.entries(texts.outputs ?? {})) {
    if (definition.output_name) definition.output_name[index] = own.name
    if (definition.output_tooltips) definition.output_tooltips[index] = own.tooltip
  }
}

function label(node) {
  const own = known[node.comfyClass ?? node.type]
  if (!own) return
  for (const widget of node.widgets ?? []) {
    if (own.inputs?.[widget.name]) widget.label = own.inputs[widget.name].name
  }
  for (const input of node.inputs ?? []) {
    if (own.inputs?.[input.name]) input.label = own.inputs[input.name].name
  }
  for (const [index, output] of (node.outputs ?? []).entries()) {
    if (own.outputs?.[index]) output.label = own.outputs[index].name
  }
}

let known = {}

app.registerExtension({
  name: 'FuseDream.Locale',
  nodeCreated: label,
  loadedGraphNode: label,
  async addCustomNodeDefs(definitions) {
    const language = app.extensionManager.setting.get('Comfy.Locale')
    if (!language || language === 'en') return
    const answer = await api.fetchApi('/i18n')
    if (!answer.ok) return
    const texts = (await answer.json())[language]?.nodeDefs ?? {}
    known = Object.fromEntries(Object.entries(texts).filter(([id]) => id.startsWith(PREFIX)))
    for (const [id, own] of Object.entries(known)) {
      if (definitions[id]) translate(definitions[id], own)
    }
  }
})
