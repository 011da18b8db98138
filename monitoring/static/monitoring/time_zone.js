// Store the browser's time zone in a cookie for the next page of the admin, unless one was chosen.
"use strict";
if (!/(^|; )time_zone=/.test(document.cookie)) {
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    if (/^[\w+/-]+$/.test(zone)) {
        document.cookie = `time_zone=${zone}; path=/admin/; max-age=31536000; samesite=lax`;
    }
}
