/* The client's end of a measurement, for whichever server: sends prepared messages, counts answers.

     driver FRAMING CPU COMMAND [ARGUMENT ...]    a server behind pipes, which is started
     driver FRAMING CPU tcp:PORT                  one that listens on 127.0.0.1

   FRAMING is how answers are told apart: `u32`, a length of 4 bytes, big-endian, before each (what
   begins as a MessagePack-RPC notification is no answer); `line`, each ends with a newline; `fixed`,
   all are as long as the first one. CPU is the processor that driver and server are bound to, or -1.

   It then reads lines from stdin:

     run FILE COUNT WINDOW

   sends COUNT messages, those of FILE in turn, never more than WINDOW unanswered, and prints a line
   of JSON: `ns` for all of them; `p50` and `p99` of a round trip where WINDOW is 1; the shortest and
   the longest answer, in bytes, and the first bytes of the last one in hexadecimal.

   FILE is the number of messages, the length of each, and the messages; numbers have 4 bytes in the
   machine's own order. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PIPE_BYTES = 1 << 20, READ_BYTES = 1 << 20, SHOWN = 4096, QUIET_MS = 300, SILENT_MS = 60000 };
enum framing { U32, LINE, FIXED };

static int in, out; /* what the server writes, and reads */
static enum framing framing;
static size_t fixed; /* bytes of an answer, once they are known */
static pid_t child;

/* The answer that is being read, without its length; and the last whole one. */
static unsigned char head[4], shown[SHOWN], last[SHOWN];
static size_t head_bytes, left, size, last_size, shortest, longest;
static int in_body;

static unsigned char buffer[READ_BYTES];

static void die(const char *what) {
  fprintf(stderr, "driver: %s: %s\n", what, strerror(errno));
  if (child) kill(child, SIGKILL);
  exit(1);
}

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static size_t end_of_answer(void) {
  int is_notification = framing == U32 && size >= 2 && shown[0] == 0x93 && shown[1] == 2;
  size_t count = 0;
  if (!is_notification) {
    memcpy(last, shown, size < SHOWN ? size : SHOWN);
    last_size = size;
    if (size < shortest) shortest = size;
    if (size > longest) longest = size;
    count = 1;
  }
  size = 0;
  in_body = 0;
  head_bytes = 0;
  return count;
}

static void body(const unsigned char *at, size_t bytes) {
  if (size < SHOWN) memcpy(shown + size, at, bytes < SHOWN - size ? bytes : SHOWN - size);
  size += bytes;
}

/* How many answers end in these bytes. */
static size_t answers_in(const unsigned char *at, size_t bytes) {
  size_t count = 0;
  while (bytes) {
    size_t taken;
    if (framing == LINE) {
      const unsigned char *newline = memchr(at, '\n', bytes);
      taken = newline ? (size_t)(newline - at) + 1 : bytes;
      body(at, taken);
      if (newline) count += end_of_answer();
    } else {
      if (!in_body && framing == FIXED) {
        left = fixed;
        in_body = 1;
      }
      if (!in_body) {
        taken = 4 - head_bytes < bytes ? 4 - head_bytes : bytes;
        memcpy(head + head_bytes, at, taken);
        head_bytes += taken;
        if (head_bytes == 4) {
          left = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
          in_body = 1;
          if (!left) count += end_of_answer();
        }
      } else {
        taken = left < bytes ? left : bytes;
        body(at, taken);
        left -= taken;
        if (!left) count += end_of_answer();
      }
    }
    at += taken;
    bytes -= taken;
  }
  return count;
}

static size_t read_answers(void) {
  ssize_t got = read(in, buffer, READ_BYTES);
  if (got == 0) {
    errno = EPIPE;
    die("the server ended");
  }
  if (got < 0) die("read");
  return answers_in(buffer, (size_t)got);
}

static int order(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

/* Waits for what can be done next; nothing ever takes this long but a server that is lost. */
static short wait_for(short events) {
  struct pollfd fds[2] = {{in, POLLIN, 0}, {out, POLLOUT, 0}};
  int ready = poll(fds, events & POLLOUT ? 2 : 1, SILENT_MS);
  if (ready < 0) die("poll");
  if (ready == 0) {
    errno = ETIMEDOUT;
    die("no answer");
  }
  return (short)(fds[0].revents | fds[1].revents);
}

/* The first answer of a server whose answers nothing tells apart: what comes until it is quiet. */
static void learn(const unsigned char *message, size_t bytes) {
  struct pollfd quiet = {in, POLLIN, 0};
  if (write(out, message, bytes) != (ssize_t)bytes) die("write");
  wait_for(POLLIN);
  while (poll(&quiet, 1, QUIET_MS) > 0) {
    ssize_t got = read(in, buffer, READ_BYTES);
    if (got <= 0) die("the server ended");
    fixed += (size_t)got;
  }
}

static void run(const char *path, size_t count, size_t window) {
  int fd = open(path, O_RDONLY);
  struct stat stat;
  if (fd < 0 || fstat(fd, &stat)) die(path);
  const uint32_t *file =
      mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
  if (file == MAP_FAILED) die(path);
  close(fd);
  size_t messages = file[0];
  const unsigned char *bytes = (const unsigned char *)(file + 1 + messages);
  size_t *end = malloc(messages * sizeof *end);
  uint64_t *took = malloc(count * sizeof *took);
  if (!end || !took) die("malloc");
  for (size_t i = 0, at = 0; i < messages; i++) end[i] = at += file[1 + i];
  if (framing == FIXED && !fixed) learn(bytes, end[0]);

  shortest = SIZE_MAX;
  longest = 0;
  /* `sent` whole messages, and of the next ones up to the window the bytes from `from` to `to`. */
  size_t sent = 0, answered = 0, from = 0, to = 0;
  uint64_t began = now_ns(), sent_at = began;
  while (answered < count) {
    if (from == to && sent < count && sent - answered < window) {
      /* As many as there is room for, as far as they lie beside each other. */
      size_t room = window - (sent - answered), first = sent % messages;
      if (room > count - sent) room = count - sent;
      if (room > messages - first) room = messages - first;
      from = first ? end[first - 1] : 0;
      to = end[first + room - 1];
      sent += room;
      if (window == 1) sent_at = now_ns();
    }
    if (from < to) {
      ssize_t written = write(out, bytes + from, to - from);
      if (written < 0 && errno != EAGAIN) die("write");
      if (written > 0) from += (size_t)written;
      if (from < to && !(wait_for(POLLIN | POLLOUT) & POLLIN)) continue;
      if (from == to && sent < count && sent - answered < window) continue;
    }
    size_t before = answered;
    answered += read_answers();
    if (window == 1 && answered > before) took[before] = now_ns() - sent_at;
  }
  uint64_t all = now_ns() - began;
  uint64_t p50 = 0, p99 = 0;
  if (window == 1) {
    qsort(took, count, sizeof *took, order);
    p50 = took[count / 2];
    p99 = took[count * 99 / 100];
  }
  printf("{\"ns\": %llu, \"p50\": %llu, \"p99\": %llu, \"shortest\": %zu, \"longest\": %zu, ",
         (unsigned long long)all, (unsigned long long)p50, (unsigned long long)p99, shortest,
         longest);
  printf("\"last\": \"");
  for (size_t i = 0; i < last_size && i < SHOWN; i++) printf("%02x", last[i]);
  printf("\"}\n");
  fflush(stdout);
  free(end);
  free(took);
  munmap((void *)file, (size_t)stat.st_size);
}

static void spawn(char **command) {
  int to[2], from[2];
  if (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC)) die("pipe");
  fcntl(to[1], F_SETPIPE_SZ, PIPE_BYTES);
  fcntl(from[0], F_SETPIPE_SZ, PIPE_BYTES);
  child = fork();
  if (child < 0) die("fork");
  if (child == 0) {
    dup2(to[0], 0);
    dup2(from[1], 1);
    execvp(command[0], command);
    die(command[0]);
  }
  close(to[0]);
  close(from[1]);
  out = to[1];
  in = from[0];
}

static void connect_to(int port) {
  int one = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  in = out = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (in < 0 || connect(in, (struct sockaddr *)&address, sizeof address)) die("connect");
  setsockopt(in, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

int main(int argc, char **argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: driver u32|line|fixed CPU tcp:PORT | COMMAND [ARGUMENT ...]\n");
    return 2;
  }
  framing = strcmp(argv[1], "u32") ? strcmp(argv[1], "line") ? FIXED : LINE : U32;
  int cpu = atoi(argv[2]);
  if (cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set)) die("sched_setaffinity");
  }
  signal(SIGPIPE, SIG_IGN);
  if (strncmp(argv[3], "tcp:", 4) == 0)
    connect_to(atoi(argv[3] + 4));
  else {
    spawn(argv + 3);
    /* Reading waits; writing must not, while the server waits for us to read. */
    fcntl(out, F_SETFL, O_NONBLOCK);
  }
  printf("{\"pid\": %d}\n", (int)child);
  fflush(stdout);

  char line[8192], path[4096];
  size_t count, window;
  while (fgets(line, sizeof line, stdin)) {
    if (sscanf(line, "run %4095s %zu %zu", path, &count, &window) != 3 || !count || !window) {
      errno = EINVAL;
      die(line);
    }
    run(path, count, window);
  }
  if (child) kill(child, SIGKILL);
  return 0;
}
