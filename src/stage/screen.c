// screen.c: see screen.h.
#include "stage/screen.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

static double get(const Run *run, const char *key) { return summary_get(run->summary, key); }

// The text without its white space at both ends, on one line.
static char *one_line(const char *text) {
    while (*text == ' ' || *text == '\n') text++;
    char *line = mem_strdup(text);
    size_t n = strlen(line);
    while (n && (line[n - 1] == ' ' || line[n - 1] == '\n')) line[--n] = 0;
    for (char *c = line; *c; c++)
        if (*c == '\n') *c = ' ';
    return line;
}

static void say_prompt(const Run *run, int i) {
    static const char *const what[] = {"prompt", "before", "after"};
    char key[32];
    for (int w = 0; w < DS_COUNT(what); w++) {
        snprintf(key, sizeof key, "ppo.%s%d", what[w], i);
        char *line = one_line(summary_get_text(run->summary, key));
        log_info("  %-7s %s", what[w], line);
        mem_free(line);
    }
}

static void say_figures(const Run *run) {
    if (isfinite(get(run, "sft.perplexity_after")))
        log_info("sft   perplexity    %8.3f -> %.3f", get(run, "sft.perplexity_before"),
                 get(run, "sft.perplexity_after"));
    if (isfinite(get(run, "rm.accuracy_after")))
        log_info("rm    accuracy      %7.1f%% -> %.1f%%  [%.1f, %.1f]", 100 * get(run, "rm.accuracy_before"),
                 100 * get(run, "rm.accuracy_after"), 100 * get(run, "rm.accuracy_low"),
                 100 * get(run, "rm.accuracy_high"));
    if (isfinite(get(run, "ppo.reward_after")))
        log_info("ppo   reward        %8.3f -> %.3f   KL %.3f nats a sequence", get(run, "ppo.reward_before"),
                 get(run, "ppo.reward_after"), get(run, "ppo.kl_after"));
    if (isfinite(get(run, "ppo.true_score_after")))
        log_info("      true score    %8.3f -> %.3f", get(run, "ppo.true_score_before"),
                 get(run, "ppo.true_score_after"));
}

// Where all lies, and what to do with the latest model that answers, or with the reward model where there is no other.
static void say_next(const Run *run) {
    const char *out = run->p->job.out;
    const bool sft = run->products >> STAGE_SFT & 1, ppo = run->products >> STAGE_PPO & 1;
    char *model = stage_product_path(run->p, ppo ? STAGE_PPO : sft ? STAGE_SFT : STAGE_RM);
    log_info("%.0f s; models, checkpoints, history.nc,%s summary.json and log.txt are in %s",
             clock_now() - run->started, ppo ? " rollouts.nc," : "", out);
    if (sft || ppo) log_info("next: bin/dschat-chat %s     h5ls -r %s     ncdump -h %s/history.nc", model, model, out);
    else
        log_info("next: bin/dschat-eval %s --score %s     h5ls -r %s     ncdump -h %s/history.nc", model,
                 run->p->data.rm_file, model, out);
    mem_free(model);
}

void screen_last(const Run *run) {
    char key[32];
    log_info(" ");
    say_figures(run);
    for (int i = 1; i <= run->p->job.show_prompts; i++) {
        snprintf(key, sizeof key, "ppo.after%d", i);
        if (summary_get_text(run->summary, key)[0]) say_prompt(run, i);
    }
    log_info(" ");
    say_next(run);
}
