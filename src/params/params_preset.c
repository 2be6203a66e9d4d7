// params_preset.c: one row a key and preset. Values are the defaults of the programs' PPO trainers. What no key can
// express stays ours: the denominators are global, whitening is global with the biased variance, the score lands on the
// last action.
#include "params/params_preset.h"

typedef struct {
    Preset preset;
    const char *section, *name, *value;
} PresetRow;

static const PresetRow rows[] = {
    {PRESET_DEEPSPEED_CHAT, "sft", "loss_on", "all"},
    {PRESET_DEEPSPEED_CHAT, "rm", "loss", "tokens"},
    {PRESET_DEEPSPEED_CHAT, "generate", "greedy", "yes"},
    {PRESET_DEEPSPEED_CHAT, "ppo", "kl_coef", "0.1"},
    {PRESET_DEEPSPEED_CHAT, "ppo", "clip_reward", "5"},
    {PRESET_DEEPSPEED_CHAT, "ppo", "lam", "0.95"},
    {PRESET_DEEPSPEED_CHAT, "ppo", "whiten", "off"},
    {PRESET_DEEPSPEED_CHAT, "ppo", "eps_value", "0.2"},
    {PRESET_DEEPSPEED_CHAT, "ppo", "lr", "9.65e-6"},
    {PRESET_DEEPSPEED_CHAT, "ppo", "critic_lr", "5e-6"},
    {PRESET_DEEPSPEED_CHAT, "ppo", "warmup_steps", "100"},

    {PRESET_OPENRLHF, "rm", "loss", "last"},
    {PRESET_OPENRLHF, "ppo", "kl_coef", "0.01"},
    {PRESET_OPENRLHF, "ppo", "clip_reward", "10"},
    {PRESET_OPENRLHF, "ppo", "lam", "1"},
    {PRESET_OPENRLHF, "ppo", "whiten", "global"},
    {PRESET_OPENRLHF, "ppo", "eps_value", "0.5"},
    {PRESET_OPENRLHF, "ppo", "lr", "1e-6"},
    {PRESET_OPENRLHF, "ppo", "critic_lr", "9e-6"},
    {PRESET_OPENRLHF, "ppo", "schedule", "cosine_with_min_lr"},
    {PRESET_OPENRLHF, "ppo", "min_lr_ratio", "0.1"},
    {PRESET_OPENRLHF, "ppo", "warmup_ratio", "0.03"},

    {PRESET_TRL, "rm", "loss", "last"},
    {PRESET_TRL, "generate", "temperature", "0.7"},
    {PRESET_TRL, "ppo", "kl_coef", "0.05"},
    {PRESET_TRL, "ppo", "clip_reward", "0"},
    {PRESET_TRL, "ppo", "lam", "0.95"},
    {PRESET_TRL, "ppo", "whiten", "global"},
    {PRESET_TRL, "ppo", "ppo_epochs", "4"},
    {PRESET_TRL, "ppo", "lr", "3e-6"},
    {PRESET_TRL, "ppo", "critic_lr", "3e-6"},
    {PRESET_TRL, "ppo", "schedule", "linear"},
    {PRESET_TRL, "ppo", "warmup_steps", "0"},
    {PRESET_TRL, "ppo", "beta2", "0.999"},

    {PRESET_VERL, "ppo", "kl_coef", "0.001"},
    {PRESET_VERL, "ppo", "clip_reward", "0"},
    {PRESET_VERL, "ppo", "lam", "1"},
    {PRESET_VERL, "ppo", "whiten", "global"},
    {PRESET_VERL, "ppo", "dual_clip", "3"},
    {PRESET_VERL, "ppo", "eps_value", "0.5"},
    {PRESET_VERL, "ppo", "beta2", "0.999"},
};

void params_preset_apply(Params *p) {
    const KeyTable *t = params_table();
    if (p->ppo.preset == PRESET_NONE) return;
    for (int i = 0; i < DS_COUNT(rows); i++) {
        if (rows[i].preset != p->ppo.preset) continue;
        int k = keytable_find(t, rows[i].section, rows[i].name);
        if (k < 0) err_fatal("preset of an unknown key %s.%s", rows[i].section, rows[i].name);
        if (p->from[k].origin != KEY_FROM_DEFAULT) continue;
        if (keytable_set(t, p, k, rows[i].value, "preset")) err_fatal("illegal preset: %s", err_text());
        p->from[k].origin = KEY_FROM_PRESET;
    }
}
