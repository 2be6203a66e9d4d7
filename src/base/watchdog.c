// watchdog.c: the sections, the thread that looks at them, and who is told to have failed.
#include "base/watchdog.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/launcher.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/watch_crash.h"
#include "base/watch_files.h"
#include "base/watch_say.h"

enum {
    DEPTH = 16,
    NAMED = 8,
    START_LIMIT = 600,
    FATAL_SECONDS = 15,
    SILENT_SECONDS = 2,
    MOST_KIN = 512,
    ROUNDS = 20,
    LATE_ROUNDS = 3,
    STACK_BYTES = 256 << 10
};

static const double QUIT_SECONDS = 0.05; // from SIGQUIT to the end of all who got it

typedef struct {
    WatchKind kind;
    const char *doing;
    const WatchGroup *group;
    uint64_t call;
    char what[sizeof((WatchWords *)0)->what];
} Section;

// What the main thread writes and the watchdog reads.
static struct {
    pthread_mutex_t lock;
    Section stack[DEPTH]; // [0]: what a rank does that is in no section
    int depth;
    char stage[sizeof((WatchWords *)0)->stage];
    int64_t step;
    _Atomic uint64_t moves;
    _Atomic double limit, gone_at; // gone_at > 0: the process is to be gone then
    bool started;
} rank_is = {
    .lock = PTHREAD_MUTEX_INITIALIZER, .stack = {{.kind = WATCH_WORK, .doing = "computing"}}, .limit = START_LIMIT};

// The watchdog's own; what begins with "board" is set by the main thread, under the lock.
static struct {
    WatchRule rule;
    WatchMemory *seen; // [board->size]
    clockid_t cpu;     // the main thread's
    pid_t main_thread;
    double cpu_used, cpu_at; // and when it grew
    uint64_t bytes, byte_moves;
    WatchBoard *board; // NULL: none yet
    const int *local;
    int n_local, rank;
    uint64_t round; // the courier's, as last seen, and when
    double round_at;
    WatchSlot alone;  // before there is a board
    WatchWords words; // those of its slot
} dog = {.rank = -1};

// ---- the main thread ----

static void lock(void) { pthread_mutex_lock(&rank_is.lock); }
static void unlock(void) { pthread_mutex_unlock(&rank_is.lock); }
static void move(void) { atomic_fetch_add_explicit(&rank_is.moves, 1, memory_order_relaxed); }

static void push(const Section *s, const char *what) {
    lock();
    if (++rank_is.depth < DEPTH) {
        Section *top = &rank_is.stack[rank_is.depth];
        top->kind = s->kind, top->doing = s->doing, top->group = s->group, top->call = s->call;
        top->what[0] = 0;
        if (what) snprintf(top->what, sizeof top->what, "%s", what);
    }
    unlock();
    move();
}

void watchdog_enter(WatchKind kind, const char *doing, const char *what) {
    push(&(Section){.kind = kind, .doing = doing}, what);
}

void watchdog_wait(const char *doing, const char *what, const WatchGroup *group, uint64_t call) {
    push(&(Section){.kind = WATCH_WAIT, .doing = doing, .group = group, .call = call}, what);
}

void watchdog_leave(void) {
    lock();
    if (rank_is.depth > 0) rank_is.depth--;
    unlock();
    move();
}

void watchdog_tick(void) { move(); }

void watchdog_step(const char *stage, int64_t step) {
    lock();
    snprintf(rank_is.stage, sizeof rank_is.stage, "%s", stage);
    rank_is.step = step;
    unlock();
}

void watchdog_limit(double seconds) {
    rank_is.limit = seconds;
    watch_files_period((seconds < WATCH_FLOOR ? seconds : WATCH_FLOOR) / ROUNDS);
}

static Section *top(void) { return &rank_is.stack[rank_is.depth < DEPTH ? rank_is.depth : DEPTH - 1]; }

// The length of the words of a section that are shown.
static int shown(const Section *s) { return (int)strcspn(s->doing, "("); }

char *watchdog_where(char *out, size_t size) {
    bool mine = false;
    out[0] = 0;
    // A signal's handler may stand in the middle of push.
    for (int tries = 0; tries < 1000 && !mine; tries++) mine = pthread_mutex_trylock(&rank_is.lock) == 0;
    if (!mine) return out;
    const Section *s = top();
    if (rank_is.depth > 0 || rank_is.stage[0]) {
        char step[32] = "";
        if (rank_is.step > 0) snprintf(step, sizeof step, " step %lld", (long long)rank_is.step);
        snprintf(out, size, "in \"%.*s\"%s%s%s%s%s%s", shown(s), s->doing, s->what[0] ? " (" : "", s->what,
                 s->what[0] ? ")" : "", rank_is.stage[0] ? " at " : "", rank_is.stage, step);
    }
    unlock();
    return out;
}

// ---- what others see ----

static WatchSlot *own(void) { return dog.board ? &dog.board->slot[dog.rank] : &dog.alone; }

static double deadline(const Section *s) { return watch_rule_allowed(&dog.rule, s->kind, watch_asleep(own())); }

static void publish(const Section *s) {
    WatchSlot *o = own();
    WatchWords *w = &dog.words;
    snprintf(w->doing, sizeof w->doing, "%.*s", shown(s), s->doing);
    memcpy(w->what, s->what, sizeof w->what);
    memcpy(w->stage, rank_is.stage, sizeof w->stage);
    w->step = rank_is.step;
    watch_board_copy(&o->words, w, sizeof *w);
    o->quiet = (float)watch_rule_quiet(&dog.rule);
    o->idle = (float)(dog.rule.awake - dog.cpu_at);
    o->waits = s->kind == WATCH_WAIT;
    o->group = s->group ? s->group->id : 0;
    o->call = s->call;
    o->overdue = s->kind != WATCH_WAIT && watch_rule_quiet(&dog.rule) > deadline(s);
    o->beat++;
}

static void introduce(WatchSlot *s) {
    s->pid = getpid();
    gethostname(dog.words.host, sizeof dog.words.host - 1);
    watch_board_copy(&s->words, &dog.words, sizeof dog.words);
    s->state = WATCH_RUNS;
}

size_t watch_board_bytes(int size) { return sizeof(WatchBoard) + (size_t)size * sizeof(WatchSlot); }

_Static_assert(sizeof(WatchSlot) % 8 == 0 && sizeof(WatchWords) % 8 == 0, "they are copied by words");

void watch_board_copy(void *to, const void *from, size_t bytes) {
    typedef uint64_t __attribute__((may_alias)) Word;
    Word *t = to;
    const Word *f = from;
    for (size_t i = 0; i < bytes / 8; i++)
        __atomic_store_n(&t[i], __atomic_load_n(&f[i], __ATOMIC_RELAXED), __ATOMIC_RELAXED);
}

void watchdog_join(WatchBoard *board, int rank, const int *local, int n_local) {
    WatchMemory *seen = MEM_NEW(WatchMemory, board->size);
    for (int i = 0; i < n_local; i++) seen[local[i]].local = true;
    lock();
    dog.board = board;
    dog.rank = rank;
    dog.local = local;
    dog.n_local = n_local;
    dog.seen = seen;
    introduce(own());
    publish(top());
    unlock();
}

// ---- the end ----

// How long nothing was heard of a rank.
static double seconds_of(int rank) {
    const WatchMemory *m = &dog.seen[rank];
    return m->local ? dog.rule.awake - m->at : m->age;
}

static double round_seconds(void) { return watch_rule_floor(&dog.rule) / ROUNDS; }

static bool on_board(int pid) {
    for (int i = 0; dog.board && i < dog.n_local; i++)
        if (dog.board->slot[dog.local[i]].pid == pid) return true;
    return false;
}

// Ranks that are stopped go on, to find that the job ends; those that cannot learn it from the board are told to end.
static void wake_others(void) {
    WatchKin kin[MOST_KIN];
    const int n = watch_kin(kin, MOST_KIN);
    for (int i = 0; dog.board && i < dog.n_local; i++) { // whatever their parent is
        const WatchSlot *s = &dog.board->slot[dog.local[i]];
        const bool there = s->state == WATCH_RUNS || s->state == WATCH_ENDED;
        if (dog.local[i] != dog.rank && there && seconds_of(dog.local[i]) > 1) watch_wake(s->pid);
    }
    for (int i = 0; i < n; i++) {
        if (!on_board(kin[i].pid)) kill(kin[i].pid, SIGQUIT);
        if (kin[i].stopped) kill(kin[i].pid, SIGCONT);
    }
}

static int count_running(void) {
    int n = 0;
    for (int i = 0; i < dog.n_local; i++) {
        const int32_t state = dog.board->slot[dog.local[i]].state;
        n += state == WATCH_RUNS || state == WATCH_FATAL || state == WATCH_ENDED;
    }
    return n;
}

// The main thread may be spinning on the processor that another rank needs to end.
static void step_aside(void) { sched_setscheduler(dog.main_thread, SCHED_IDLE, &(struct sched_param){0}); }

// All ranks of the node leave at one moment: a launcher that sees one go kills the others, and then tells the signal
// as the job's exit code.
static _Noreturn void leave_together(bool first) {
    WatchBoard *b = dog.board;
    own()->state = WATCH_READY;
    step_aside();
    if (first) {
        for (int tries = 0; tries < 100 && count_running() > 0; tries++) clock_sleep_until(clock_now() + 0.02);
        b->leave = clock_now() + 0.05;
    }
    for (int tries = 0; tries < 300 && b->leave == 0; tries++) clock_sleep_until(clock_now() + 0.02);
    if (b->leave > 0) clock_sleep_until(b->leave);
    _exit(DS_ERR_BUG); // lint: the main thread stands still
}

_Noreturn void watchdog_quit(void) {
    step_aside();
    clock_sleep_until(clock_now() + QUIT_SECONDS);
    _exit(DS_ERR_BUG); // lint: another rank has said why
}

// Whether a lower rank of another node lives, as far as is known.
static bool lower_lives(void) {
    for (int r = 0; r < dog.local[0]; r++)
        if (dog.board->slot[r].state == WATCH_RUNS && dog.seen[r].age < LATE_ROUNDS * round_seconds()) return true;
    return false;
}

// Without a board, whether a lower rank of this node runs.
static bool lower_kin_runs(void) {
    WatchKin kin[MOST_KIN];
    const int n = watch_kin(kin, MOST_KIN);
    for (int i = 0; i < n; i++)
        if (kin[i].rank < dog.rank && !kin[i].stopped) return true;
    return false;
}

// All find the same at about the same time, and one is to speak: the lowest that lives. The others wait so long that
// they hear of it, or are ended.
static void wait_for_the_speaker(void) {
    double seconds = 0;
    if (dog.board) seconds = dog.n_local < dog.board->size && lower_lives() ? 2 * round_seconds() : 0;
    else if (lower_kin_runs()) seconds = WATCH_LAUNCHER_SECONDS + 1;
    else if (dog.rank > 0) seconds = 1 + 0.01 * (dog.rank % 100); // of the first node
    clock_sleep_until(clock_now() + seconds);
}

// The job ends; the first of the node to come here with words speaks.
static _Noreturn void end_job(WatchText *t) {
    int nobody = 0;
    WatchBoard *b = dog.board;
    const bool far = b && dog.n_local < b->size;
    if (t) wait_for_the_speaker();
    if (b && (!t || !atomic_compare_exchange_strong(&b->fired, &nobody, 1 + dog.rank))) leave_together(false);
    watch_add(t, "\ndschat: the job ends with exit code %d\n", DS_ERR_BUG);
    watch_write(t);
    if (watch_tell_launcher(DS_ERR_BUG)) clock_sleep_until(clock_now() + WATCH_LAUNCHER_SECONDS);
    else if (far) clock_sleep_until(clock_now() + 1.2 * round_seconds()); // the courier tells the other nodes
    wake_others();
    if (b) leave_together(true);
    watchdog_quit();
}

static void begin_text(WatchText *t) {
    *t = (WatchText){0};
    watch_add(t, "dschat: ");
}

static void add_self(WatchText *t) { watch_add_rank(t, dog.rank, own()); }

static void add_own(WatchText *t) {
    watch_add_rank(t, dog.rank, own());
    watch_add(t, " has been in ");
    watch_add_place(t, own());
    watch_add(t, " for %.0f s", watch_rule_quiet(&dog.rule));
}

static void add_kin(WatchText *t) {
    WatchKin kin[MOST_KIN];
    const int n = watch_kin(kin, MOST_KIN);
    for (int i = 0; i < n; i++)
        if (kin[i].stopped) watch_add(t, "\n  rank %d (pid %d) is stopped", kin[i].rank, kin[i].pid);
}

static _Noreturn void end_stuck(const Section *s) {
    WatchText t;
    begin_text(&t);
    add_own(&t);
    watch_add(&t, " without progress%s (deadline %.0f s)", watch_asleep(own()) ? ", asleep in the system" : "",
              deadline(s));
    if (s->kind == WATCH_WAIT && !dog.board) add_kin(&t);
    end_job(&t);
}

static void add_other(WatchText *t, int rank, const char *how) {
    const WatchSlot *s = &dog.board->slot[rank];
    watch_add(t, "\n  ");
    if (s->state == WATCH_NONE) {
        watch_add(t, "rank %d: nothing was heard of it", rank);
        return;
    }
    watch_add_rank(t, rank, s);
    watch_add(t, s->state == WATCH_ENDED ? " has ended; it was in " : how);
    watch_add_place(t, s);
    if (s->state != WATCH_ENDED)
        watch_add(t, " for %.0f s%s", (double)s->quiet, watch_asleep(s) ? ", asleep in the system" : "");
}

// Whether rank r has come to the exchange that this rank waits in.
static bool is_there(const Section *s, int r) {
    const WatchSlot *o = &dog.board->slot[r];
    WatchWords w;
    watch_board_copy(&w, &o->words, sizeof w);
    return o->state == WATCH_RUNS && o->waits && o->group == s->group->id && o->call == s->call &&
           !strncmp(w.doing, dog.words.doing, sizeof w.doing);
}

// Names those of the group that pick says, at most NAMED; how many there are.
static int add_those(WatchText *t, const Section *s, bool asleep) {
    int n = 0;
    for (int i = 0; i < s->group->n; i++) {
        const int r = s->group->ranks[i];
        if (r == dog.rank || is_there(s, r) != asleep || (asleep && !watch_asleep(&dog.board->slot[r]))) continue;
        if (n++ < NAMED) add_other(t, r, asleep ? " is there, in " : " is in ");
    }
    if (n > NAMED) watch_add(t, "\n  and %d more", n - NAMED);
    return n;
}

static bool all_known(const Section *s) {
    for (int i = 0; i < s->group->n; i++)
        if (dog.board->slot[s->group->ranks[i]].state == WATCH_NONE) return false;
    return true;
}

static _Noreturn void end_waiting(const Section *s) {
    WatchText t, names = {0};
    int n = add_those(&names, s, false);
    begin_text(&t);
    add_own(&t);
    watch_add(&t, "%s (exchange %llu of %d ranks, deadline %.0f s)",
              watch_asleep(own()) ? ", asleep in the system" : "", (unsigned long long)s->call, s->group->n,
              deadline(s));
    if (n) watch_add(&t, "; not there:%s", names.text);
    else if (add_those(&names, s, true)) watch_add(&t, "; all are there, but do not go on:%s", names.text);
    else watch_add(&t, "; all are there: the network or the MPI library stands still");
    if (!all_known(s)) add_kin(&t);
    end_job(&t);
}

// Rank r is silent or gone.
static _Noreturn void end_lost(int r, bool gone) {
    WatchText t;
    const WatchSlot *s = &dog.board->slot[r];
    begin_text(&t);
    watch_add_rank(&t, r, s);
    if (gone) watch_add(&t, " is gone without a word: killed, perhaps by the system for want of memory");
    else watch_add(&t, " has been silent for %.0f s: stopped, or its machine stands still", seconds_of(r));
    watch_add(&t, "; last seen in ");
    watch_add_place(&t, s);
    watch_add(&t, "\n  noticed by ");
    add_own(&t);
    end_job(&t);
}

// ---- the watchdog ----

// Looks at rank r: is it there?
static void look_at(int r) {
    const WatchSlot *s = &dog.board->slot[r];
    WatchMemory *m = &dog.seen[r];
    const uint64_t beat = s->beat;
    if (m->at == 0 || beat != m->beat || s->state == WATCH_LEAVES || s->state == WATCH_NONE) {
        m->beat = beat;
        m->at = dog.rule.awake;
    }
    if (s->state == WATCH_FATAL && seconds_of(r) > FATAL_SECONDS) end_job(NULL); // its words were the last
    if (s->state != WATCH_RUNS && s->state != WATCH_ENDED) return;
    const bool alive = kill(s->pid, 0) == 0;
    m->there |= alive;
    if (m->there && !alive && seconds_of(r) > 1) end_lost(r, true);
    if (seconds_of(r) > watch_rule_floor(&dog.rule) && watch_debugged(s->pid))
        m->at = dog.rule.awake; // by someone who reads
    if (seconds_of(r) > watch_rule_floor(&dog.rule)) end_lost(r, false);
}

// Has the courier brought news of rank r, of another node? A late round counts as a few: it may be late on both sides.
static void look_far(int r, double since) {
    const WatchSlot *s = &dog.board->slot[r];
    WatchMemory *m = &dog.seen[r];
    const uint64_t beat = s->beat;
    const double most = LATE_ROUNDS * round_seconds();
    m->age = beat != m->beat || s->state != WATCH_RUNS ? 0 : m->age + (since < most ? since : most);
    m->beat = beat;
    if (m->age > watch_rule_files_floor(&dog.rule)) end_lost(r, false);
}

static void look_around(void) {
    const uint64_t round = dog.board->round;
    const double since = dog.rule.awake - dog.round_at;
    for (int i = 0; i < dog.board->size; i++) {
        if (i == dog.rank) continue;
        if (dog.seen[i].local) look_at(i);
        else if (round != dog.round) look_far(i, since);
    }
    if (round == dog.round) return;
    dog.round = round;
    dog.round_at = dog.rule.awake;
}

// Has the wait a reason, a rank that works, or that may be stopped, which takes longer to tell? What was heard of other
// nodes is none any more when the courier has not come through for long.
static bool excused(void) {
    const bool hears = dog.rule.awake - dog.round_at < watch_rule_files_floor(&dog.rule);
    for (int r = 0; r < dog.board->size; r++) {
        const WatchSlot *s = &dog.board->slot[r];
        if (r == dog.rank || s->state != WATCH_RUNS || !(dog.seen[r].local || hears)) continue;
        if ((!s->waits && !s->overdue) || seconds_of(r) > SILENT_SECONDS) return true;
    }
    return false;
}

static void judge(const Section *s) {
    WatchRule *rule = &dog.rule;
    if (s->kind != WATCH_WAIT || !s->group || !dog.board) {
        if (watch_rule_quiet(rule) > deadline(s)) end_stuck(s);
        return;
    }
    if (excused()) watch_rule_excuse(rule);
    if (watch_rule_unexcused(rule) > deadline(s)) end_waiting(s);
}

// Whether the main thread has read or written since the last look.
static bool bytes_moved(void) {
    const uint64_t sum = watch_thread_bytes(dog.main_thread);
    const bool moved = sum && sum != dog.bytes;
    if (sum) dog.bytes = sum;
    return moved;
}

static void look_at_cpu(void) {
    struct timespec t;
    if (clock_gettime(dog.cpu, &t)) return;
    const double used = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    if (used - dog.cpu_used > 0.001) {
        dog.cpu_used = used;
        dog.cpu_at = dog.rule.awake;
    }
}

static void look(void) {
    Section s;
    if (rank_is.limit != dog.rule.limit) watch_rule_limit(&dog.rule, rank_is.limit);
    lock();
    s = *top();
    if (s.kind == WATCH_FILE && watch_rule_quiet(&dog.rule) > 0.5 && bytes_moved()) dog.byte_moves++;
    watch_rule_poll(&dog.rule, clock_now(), s.doing, rank_is.moves + dog.byte_moves);
    look_at_cpu();
    const int32_t state = own()->state;
    if (state != WATCH_FATAL) publish(&s);
    if (rank_is.gone_at > 0 && clock_now() > rank_is.gone_at) _exit(DS_ERR_BUG); // lint: it has said why
    if (dog.board && dog.board->fired) end_job(NULL);
    if (dog.board) look_around();
    if (state == WATCH_RUNS || state == WATCH_LEAVES) judge(&s); // what is done waits for the others
    unlock();
}

static void *watch(void *unused) {
    for (;;) {
        clock_sleep_until(clock_now() + dog.rule.period);
        look();
    }
    return unused;
}

// A child process has no watchdog, and must not wait for what was its parent's.
static void forget(void) { pthread_mutex_init(&rank_is.lock, NULL); }

void watchdog_start(void) {
    pthread_t thread;
    pthread_attr_t attributes;
    if (rank_is.started) return;
    rank_is.started = true;
    dog.rank = launcher_rank();
    dog.main_thread = (pid_t)syscall(SYS_gettid);
    if (pthread_getcpuclockid(pthread_self(), &dog.cpu)) dog.cpu = CLOCK_THREAD_CPUTIME_ID;
    introduce(&dog.alone);
    watch_rule_start(&dog.rule, rank_is.limit, clock_now());
    pthread_atfork(NULL, NULL, forget);
    watch_crash_catch(add_self);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&thread, &attributes, watch, NULL))
        log_rank("no thread can be started to watch this one: a hang would not be noticed");
    pthread_attr_destroy(&attributes);
}

void watchdog_ending(double seconds) {
    own()->state = WATCH_FATAL;
    rank_is.gone_at = clock_now() + seconds;
}

// Waits until no rank of the node is in this state; for ever where the job is ended for one that stands still.
static void wait_out(int32_t state) {
    for (bool any = true; any;) {
        any = dog.board->fired != 0;
        for (int i = 0; i < dog.n_local; i++) any |= dog.board->slot[dog.local[i]].state == state;
        if (any) clock_sleep_until(clock_now() + 0.001);
    }
}

// A rank that is stopped after the others have gone would never be missed: all go when all know that all are done.
void watchdog_end(void) {
    if (!dog.board) return;
    watchdog_enter(WATCH_WAIT, "leaving", NULL);
    own()->state = WATCH_ENDED;
    wait_out(WATCH_RUNS);
    watchdog_enter(WATCH_FILE, "ending the process", NULL);
    own()->state = WATCH_LEAVES;
    watch_files_end();
    wait_out(WATCH_ENDED);
}
