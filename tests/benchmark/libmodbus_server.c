/* The reference server in C: libmodbus with its usual select loop, ten input registers, unit 1.
 *
 * usage: libmodbus_server tcp PORT | libmodbus_server rtu PATH BAUDRATE
 */
#include <errno.h>
#include <modbus/modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

static void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, modbus_strerror(errno));
    exit(1);
}

static void serve_tcp(modbus_t *context, modbus_mapping_t *image) {
    int listener = modbus_tcp_listen(context, 64);
    if (listener < 0) fail("listen");
    fd_set open_sockets;
    FD_ZERO(&open_sockets);
    FD_SET(listener, &open_sockets);
    int highest = listener;
    uint8_t request[MODBUS_TCP_MAX_ADU_LENGTH];
    for (;;) {
        fd_set ready = open_sockets;
        if (select(highest + 1, &ready, NULL, NULL, NULL) < 0) fail("select");
        for (int socket = 0; socket <= highest; socket++) {
            if (!FD_ISSET(socket, &ready)) continue;
            if (socket == listener) {
                int client = modbus_tcp_accept(context, &listener);
                if (client < 0) fail("accept");
                FD_SET(client, &open_sockets);
                if (client > highest) highest = client;
                continue;
            }
            modbus_set_socket(context, socket);
            int length = modbus_receive(context, request);
            if (length > 0) {
                modbus_reply(context, request, length, image);
            } else if (length < 0) {
                close(socket);
                FD_CLR(socket, &open_sockets);
            }
        }
    }
}

static void serve_rtu(modbus_t *context, modbus_mapping_t *image) {
    modbus_set_slave(context, 1);
    if (modbus_connect(context)) fail("connect");
    uint8_t request[MODBUS_RTU_MAX_ADU_LENGTH];
    for (;;) {
        int length = modbus_receive(context, request);
        if (length > 0) modbus_reply(context, request, length, image);
    }
}

int main(int argc, char **argv) {
    modbus_mapping_t *image = modbus_mapping_new(0, 0, 0, 10);
    if (argc == 3 && !strcmp(argv[1], "tcp")) {
        serve_tcp(modbus_new_tcp("127.0.0.1", atoi(argv[2])), image);
    } else if (argc == 4 && !strcmp(argv[1], "rtu")) {
        serve_rtu(modbus_new_rtu(argv[2], atoi(argv[3]), 'N', 8, 1), image);
    }
    fprintf(stderr, "usage: libmodbus_server tcp PORT | libmodbus_server rtu PATH BAUDRATE\n");
    return 2;
}
