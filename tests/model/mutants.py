"""mutants.py [--keep]: breaks the machine on purpose, one way at a time; and the model test has to see each.

A mutant is a text of the source and what stands there instead. A text that is not there exactly once is a stale
mutant, and a failure: the machine has changed, and the mutant has to follow. Prints TAP.
"""
import os
import subprocess
import sys
import tempfile

top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SOURCES = ["machine", "placement", "scaling", "breaker", "recycling", "reason", "states", "text", "buf", "clock", "err"]
FLAGS = ["gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O1", "-w", "-I", top + "/core/machine", "-I", top + "/core/base", "-I", top + "/tests/model"]

MUTANTS = [
    ("waiters are served last come first", "machine",
     "\twaiter_add(m, request, m->waiters.prev);", "\twaiter_add(m, request, &m->waiters);"),
    ("a retried acquirer goes to the end of the queue", "machine",
     "waiter_add(m, request, place_in_queue(m, request->token));", "waiter_add(m, request, m->waiters.prev);"),
    ("who wants a certain agent waits behind all who want it later", "machine",
     "\t\tap_list_append(turns, &request->turn);", "\t\tap_list_insert_after(turns, &request->turn);"),
    ("a retried acquirer is behind those who had no agent yet", "machine",
     "\tif (request->token == 0) {\n\t\tap_list_append", "\tif (true) {\n\t\tap_list_append"),
    ("who wants a certain agent goes before all others", "machine",
     "return a && (!b || comes_before(a, b)) ? a : b;", "return a ? a : b;"),
    ("waiters are not looked after again", "machine",
     "else if (request->deadline_ns < m->waiters_due_ns)", "else if (false)"),
    ("a user who is served goes on counting as one who waits", "machine",
     "\tuser_waits_no_more(m, request->uid);\n\tm->n_waiting--;", "\tm->n_waiting--;"),
    ("the owner of the mount is bounded", "machine",
     "return uid != 0 && uid != m->limits.owner;", "return uid != 0;"),
    ("agents that stop do not count", "machine",
     "return m->n_slots - m->n_in_state[AP_AGENT_FREE];",
     "return m->n_slots - m->n_in_state[AP_AGENT_FREE] - m->n_in_state[AP_AGENT_STOPPING];"),
    ("a label is not cleared", "machine",
     "\tslot->label.text[0] = '\\0';\n\tslot->token = 0;", "\tslot->token = 0;"),
    ("who had a label last is not looked for", "machine",
     "\tif (found && !request->affinity)", "\tif (false)"),
    ("who had a label last goes before who knows the key", "machine",
     "\tif (found && !request->affinity)", "\tif (found)"),
    ("who had a label first is found", "machine",
     "\t\tif (can_serve(slot) && is_wanted(request, slot))\n\t\t\treturn slot;",
     "\t\tif (can_serve(slot) && is_wanted(request, slot) && at->next == bucket)\n\t\t\treturn slot;"),
    ("an agent at its limit is granted", "machine",
     "return slot->state == AP_AGENT_IDLE && !slot->limited;", "return slot->state == AP_AGENT_IDLE;"),
    ("a limit of all stops nobody", "machine",
     "return !m->suspended && m->limited_until_ns == 0;", "return !m->suspended;"),
    ("a limit of all ends only when somebody says so", "machine",
     "\tif (m->limited_until_ns <= now)\n\t\tm->limited_until_ns = 0;", ""),
    ("the pool grows for those who wait for the end of a limit", "machine",
     "\tif (m->limited_until_ns != 0)\n\t\tsample.n_waiting = 0;", ""),
    ("an agent at its limit counts as ready for who waits", "machine",
     "sample.n_idle - n_idle_limited(m);", "sample.n_idle;"),
    ("a second lease gets the token of the first", "machine",
     "request->token = m->next_token++;", "request->token = m->next_token;"),
    ("a retried acquirer draws a new token", "machine",
     "\tif (request->token == 0)\n\t\trequest->token", "\tif (true)\n\t\trequest->token"),
    ("a stale token releases", "machine",
     "\tif (slot->leaving || machine_slot_stale(slot, event->token))\n\t\treturn -ESTALE;\n\tif (on_lost", "\tif (slot->leaving)\n\t\treturn -ESTALE;\n\tif (on_lost"),
    ("a stale token kills", "machine",
     "static int on_kill(struct machine_view *m, const struct machine_event *event, int64_t now,\n"
     "\t\t   struct machine_effects *fx)\n{\n\tstruct machine_slot *slot = slot_at(m, event->slot);\n"
     "\tif (slot->state == AP_AGENT_FREE)\n\t\treturn -ENOENT;\n"
     "\tif (machine_slot_stale(slot, event->token))\n",
     "static int on_kill(struct machine_view *m, const struct machine_event *event, int64_t now,\n"
     "\t\t   struct machine_effects *fx)\n{\n\tstruct machine_slot *slot = slot_at(m, event->slot);\n"
     "\tif (slot->state == AP_AGENT_FREE)\n\t\treturn -ENOENT;\n"
     "\tif (false)\n"),
    ("who asks for a recycling while an agent is cleaned is forgotten", "machine",
     "slot->recycle_next |= !slot->recycle;", "(void)0;"),
    ("one that is cleaned and asked for is recycled twice", "machine",
     "slot->recycle_next |= !slot->recycle;", "slot->recycle_next = true;"),
    ("who waits is served before the recycling that was asked for", "machine",
     "\tif (!m->suspended) /* before anybody", "\tif (false) /* before anybody"),
    ("a state has no deadline", "machine",
     "\tslot->deadline_ns = deadline_ns;\n\twake_by(m, deadline_ns);", "\twake_by(m, deadline_ns);"),
    ("a deadline is slept over", "machine",
     "\tslot->deadline_ns = deadline_ns;\n\twake_by(m, deadline_ns);", "\tslot->deadline_ns = deadline_ns;"),
    ("a late outcome counts", "machine",
     "\tif (!awaited(m, event))", "\tif (false)"),
    ("what a state waited for counts in the next", "machine",
     "slot->effect = slot->probe = 0;", "slot->probe = 0;"),
    ("an agent that does not stop is given up", "machine",
     "slot->deadline_ns = ap_clock_after(now, STOP_LIMIT);\n\t\tbreak;",
     "on_stopped(m, &late, now, fx);\n\t\tbreak;"),
    ("a leased agent is recycled under its holder", "machine",
     "ap_list_for_each_safe (at, next, &m->states[AP_AGENT_IDLE]) {",
     "ap_list_for_each_safe (at, next, &m->states[m->n_in_state[AP_AGENT_IDLE] ? AP_AGENT_IDLE : AP_AGENT_ACTIVE]) {"),
    ("an acquirer that gave up is answered again", "machine",
     "\t\tanswer(fx, slot->request, result);\n\tslot->request = NULL;", "\t\tanswer(fx, slot->request, result);"),
    ("the pool is one larger than its maximum", "machine",
     "machine_total(m) < m->limits.max_size &&", "machine_total(m) <= m->limits.max_size &&"),
    ("the breaker is not asked", "machine",
     "if (breaker_allowance(&host->breaker, host->n_unproven, now) == 0)", "if (breaker_allowance(&host->breaker, host->n_unproven, now) + 1 == 0)"),
    ("a half-open breaker lets two through", "breaker",
     "return n_spawning == 0 ? 1 : 0;", "return n_spawning < 2 ? 1 : 0;"),
    ("the pool never shrinks", "machine",
     "\t\tslot_drain(m, slot, reason, now, fx);\n\t\tnote_scaled", "\t\treturn;\n\t\tnote_scaled"),
    ("the pool shrinks at once", "machine",
     "retire_idle(m, m->limits.scale_down_window_ns ? size - 1 : wanted, AP_FOREVER,",
     "retire_idle(m, wanted, AP_FOREVER,"),
    ("the quota is off by one", "machine",
     "slot->n_prompts >= m->limits.max_prompts", "slot->n_prompts > m->limits.max_prompts"),
    ("the last used agent is served last", "machine",
     "ap_list_insert_after(&m->states[to], &slot->link);", "ap_list_append(&m->states[to], &slot->link);"),
    ("spare counts acquirers as idle", "scaling",
     "unsigned spare = size > busy ? size - busy : 0;", "unsigned spare = size > busy ? size - sample.n_active : 0;"),
    ("target rounds down", "scaling",
     "(100 * scaling_busy(sample) + limits->up_at - 1) / limits->up_at", "(100 * scaling_busy(sample)) / limits->up_at"),
    ("ewma averages what is busy now", "scaling",
     "(load->busy - load->mean) *", "(busy - load->mean) *"),
    ("an agent is recycled one request late", "recycling",
     "sample->n_requests >= limits->max_requests", "sample->n_requests > limits->max_requests"),
    ("the work of a lease is not saved on shutdown", "machine",
     "\tif (machine_slot_leased(slot))\n\t\tlease_end(m, slot, AP_REASON_SHUTDOWN",
     "\tif (machine_slot_leased(slot))\n\t\tslot_stop(m, slot, AP_REASON_SHUTDOWN, now, fx);\n"
     "\telse if (false)\n\t\tlease_end(m, slot, AP_REASON_SHUTDOWN"),
    ("an agent on a lost host is granted", "machine",
     "\t\telse if (slot->state == AP_AGENT_IDLE || slot->state == AP_AGENT_SPAWNING ||", "\t\telse if (slot->state == AP_AGENT_SPAWNING ||"),
    ("what is under way on a lost host times out", "machine",
     "\t\tslot->deadline_ns = AP_FOREVER;\n\t}\n\tserve_returned", "\t}\n\tserve_returned"),
    ("a lease on a lost host that is renewed ends by time", "machine",
     "\tif (slot->ttl_ns > 0 && !on_lost_host(m, slot))", "\tif (slot->ttl_ns > 0)"),
    ("agents begin where there is no room", "machine",
     "up && host->n_agents < host->slots);", "up);"),
    ("all hosts share a breaker", "machine",
     "\tstruct machine_host *host = host_of(m, slot);\n\tm->spawn_error", "\tstruct machine_host *host = host_at(m, 0);\n\tm->spawn_error"),
    ("a success on one host closes the breaker of another", "machine",
     "breaker_succeeded(&host_of(m, slot)->breaker);", "breaker_succeeded(&host_at(m, 0)->breaker);"),
    ("the loss of a host counts as a try", "machine",
     "\tif (request)\n\t\twaiter_return(m, request, now, fx);", "\tif (request)\n\t\ttry_again(m, request, -EIO, now, fx);"),
    ("lost agents may be replaced over max_size", "machine",
     "return m->n_slots - m->n_in_state[AP_AGENT_FREE];",
     "return m->n_slots - m->n_in_state[AP_AGENT_FREE] - m->n_in_state[AP_AGENT_LOST];"),
    ("leases on a lost host are probed", "machine",
     "\t\tif (on_lost_host(m, slot))\n\t\t\tcontinue;", ""),
    ("the end of a lease on a lost host has its agent cleaned there", "machine",
     "\tif (on_lost_host(m, slot)) {\n\t\tslot_lose(m, slot, fx);", "\tif (false) {\n\t\tslot_lose(m, slot, fx);"),
    ("what comes back goes on as it was", "machine",
     "slot_clean(m, slot, AP_REASON_LOST, false, now, fx)->restart = true;", "slot_clean(m, slot, AP_REASON_LOST, false, now, fx);"),
    ("what was never born comes back", "machine",
     "\telse if (!slot->born)\n", "\telse if (false)\n"),
    ("a host that drains keeps what is idle", "machine",
     "\t\treturn AP_REASON_DRAIN;", "\t\treturn AP_REASON_NONE;"),
    ("a releaser on a dead host is told that all is saved", "machine",
     "slot_answer(slot, fx, -EHOSTDOWN);", "slot_answer(slot, fx, 0);"),
    ("who waits for a host is no reason to begin an agent there", "machine",
     "bool lacks = m->n_waiting_for_host > 0 && host_lacks(m, host) > 0;", "bool lacks = false;"),
    ("who wants a host gets an agent on any", "machine",
     "(!request->host || request->host == slot->host + 1u);", "true;"),
    ("of hosts that are as full the highest is taken", "placement",
     "shares < 0 : room != 0 ? room > 0 : a->index < b->index;", "shares < 0 : room != 0 ? room > 0 : a->index > b->index;"),
]


def run(command, **kwargs):
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **kwargs).returncode


def source_of(name):
    path = "%s/core/machine/%s.c" % (top, name)
    return path if os.path.exists(path) else "%s/core/base/%s.c" % (top, name)


def objects(sources, directory):
    made = []
    for path in sources:
        target = os.path.join(directory, os.path.basename(path) + ".o")
        subprocess.run(FLAGS + ["-c", path, "-o", target], check=True)
        made.append(target)
    return made


def survives(linked, directory):
    program = directory + "/test_model"
    subprocess.run(["gcc"] + linked + ["-o", program, "-lpthread", "-lm"], check=True)
    try:
        return run([program, "--steps", "120000"], timeout=60) == 0
    except subprocess.TimeoutExpired:
        return False


def main():
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        model = objects([os.path.join(top, "tests/model", name) for name in sorted(os.listdir(top + "/tests/model"))
                         if name.endswith(".c")], directory)
        core = dict(zip(SOURCES, objects([source_of(name) for name in SOURCES], directory)))
        good = survives(model + list(core.values()), directory)
        print("%sok 1 - the machine as it is passes" % ("" if good else "not "), flush=True)
        failed += not good
        for number, (name, file, old, new) in enumerate(MUTANTS, 2):
            with open(source_of(file)) as source:
                text = source.read()
            verdict = "not ok %d - stale mutant: %s" % (number, name)
            if text.count(old) == 1:
                path = "%s/mutant_%s.c" % (directory, file)
                with open(path, "w") as mutant:
                    mutant.write(text.replace(old, new))
                linked = model + objects([path], directory) + [o for n, o in core.items() if n != file]
                dead = not survives(linked, directory)
                verdict = "%s %d - mutant killed: %s" % ("ok" if dead else "not ok", number, name)
            failed += verdict.startswith("not")
            print(verdict, flush=True)
        print("1..%d" % (len(MUTANTS) + 1))
    return 1 if failed else 0


sys.exit(main())
