"""What one process needs to talk to Redis so that nothing is lost: links, lanes, scripts, outages, runs, hands, encryption.

It knows no noun of multiprocessing, and imports lab.settings, lab.keyring and lab.errors alone; every other room may
import it.
"""
